//! Protobuf's wire format: where the fields of a message stand.
//!
//! Nothing is allocated by what a payload says of its own length, and a payload of n bytes is done after some n steps.

/// Groups inside each other that are passed over.
const LEVELS_MAX: usize = 100;

/// Why a payload is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// It ends within a value.
    Truncated,
    /// A number goes on after its last possible byte.
    Number,
    /// There is no field 0, nor wire types 6 and 7.
    Tag,
    /// A group ends that has not begun, or too many lie in each other.
    Group,
}

/// A value as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Raw {
    Varint(u64),
    Fixed64(u64),
    /// From and up to where in the bytes.
    Bytes(usize, usize),
    Fixed32(u32),
    /// A group, of which nothing is read.
    Group,
}

/// A message, and how far it is read.
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Input<'a> {
    /// The message that begins at `at` and ends with `bytes`.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// The next field's number and value; `None` at the message's end.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(u32, Raw)>, Broken> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let (number, wire_type) = self.tag()?;
        Ok(Some((number, self.value(number, wire_type)?)))
    }

    #[inline]
    fn tag(&mut self) -> Result<(u32, u8), Broken> {
        let tag = u32::try_from(self.varint()?).map_err(|_| Broken::Tag)?;
        if tag >> 3 == 0 { Err(Broken::Tag) } else { Ok((tag >> 3, (tag & 7) as u8)) }
    }

    #[inline]
    fn value(&mut self, number: u32, wire_type: u8) -> Result<Raw, Broken> {
        Ok(match wire_type {
            0 => Raw::Varint(self.varint()?),
            1 => Raw::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Broken::Truncated)?;
                let from = self.at;
                let to = from.checked_add(length).filter(|&to| to <= self.bytes.len()).ok_or(Broken::Truncated)?;
                self.at = to;
                Raw::Bytes(from, to)
            }
            3 => {
                self.pass_group(number)?;
                Raw::Group
            }
            4 => return Err(Broken::Group),
            5 => Raw::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(Broken::Tag),
        })
    }

    /// Goes on behind the end of a group that has begun, and of all those in it.
    fn pass_group(&mut self, number: u32) -> Result<(), Broken> {
        let mut open = vec![number];
        while let Some(&last) = open.last() {
            if self.at >= self.bytes.len() {
                return Err(Broken::Truncated);
            }
            match self.tag()? {
                (number, 3) if open.len() < LEVELS_MAX => open.push(number),
                (_, 3) => return Err(Broken::Group),
                (number, 4) if number == last => drop(open.pop()),
                (_, 4) => return Err(Broken::Group),
                (number, wire_type) => drop(self.value(number, wire_type)?),
            }
        }
        Ok(())
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let taken = *self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()).ok_or(Broken::Truncated)?;
        self.at += N;
        Ok(taken)
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, Broken> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.longer(),
        }
    }

    fn longer(&mut self) -> Result<u64, Broken> {
        let rest = self.bytes.get(self.at..).ok_or(Broken::Truncated)?;
        let mut value = 0u64;
        for (index, &byte) in rest.iter().take(10).enumerate() {
            // What the tenth byte has beyond its first bit is dropped, as all readers do.
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.at += index + 1;
                return Ok(value);
            }
        }
        Err(if rest.len() < 10 { Broken::Truncated } else { Broken::Number })
    }
}

/// A number whose sign is its lowest bit.
#[inline]
pub(super) fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
