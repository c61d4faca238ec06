//! Protobuf's wire format: where the fields of a message stand.
//!
//! Nothing is allocated by what a payload says of its own length, and a payload of n bytes is done after some n steps.

use std::ops::Range;

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

/// How a value stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Varint,
    Fixed64,
    Bytes,
    /// Nothing of it is read.
    Group,
    Fixed32,
}

/// A value. Two words and how they are meant, rather than an enum that holds them: copying that would cost as much as reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Raw {
    pub(super) wire: Wire,
    /// The number, or where the bytes begin.
    pub(super) value: u64,
    /// Where it ends.
    pub(super) to: usize,
}

impl Raw {
    /// Where its bytes stand.
    #[inline]
    pub(super) fn range(self) -> Range<usize> {
        self.value as usize..self.to
    }
}

/// A message, and how far it is read.
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
    to: usize,
    /// The field that was read last.
    pub(super) number: u32,
    wire: Wire,
    value: u64,
}

impl<'a> Input<'a> {
    /// The message `bytes[from..to]`.
    #[inline]
    pub(super) fn new(bytes: &'a [u8], from: usize, to: usize) -> Self {
        let to = to.min(bytes.len());
        Self { bytes, at: from.min(to), to, number: 0, wire: Wire::Group, value: 0 }
    }

    /// Reads the next field; `false` at the message's end.
    #[inline]
    pub(super) fn next(&mut self) -> Result<bool, Broken> {
        if self.at >= self.to {
            return Ok(false);
        }
        let wire_type = self.tag()?;
        self.value_of(wire_type)?;
        Ok(true)
    }

    /// The value of the field that was read last.
    #[inline]
    pub(super) fn raw(&self) -> Raw {
        Raw { wire: self.wire, value: self.value, to: self.at }
    }

    #[inline]
    fn tag(&mut self) -> Result<u8, Broken> {
        let tag = u32::try_from(self.varint()?).map_err(|_| Broken::Tag)?;
        self.number = tag >> 3;
        if self.number == 0 { Err(Broken::Tag) } else { Ok((tag & 7) as u8) }
    }

    #[inline]
    fn value_of(&mut self, wire_type: u8) -> Result<(), Broken> {
        (self.wire, self.value) = match wire_type {
            0 => (Wire::Varint, self.varint()?),
            1 => (Wire::Fixed64, u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                let from = self.at;
                if length > (self.to - from) as u64 {
                    return Err(Broken::Truncated);
                }
                self.at += length as usize;
                (Wire::Bytes, from as u64)
            }
            3 => {
                self.pass_group()?;
                (Wire::Group, 0)
            }
            4 => return Err(Broken::Group),
            5 => (Wire::Fixed32, u32::from_le_bytes(self.array()?).into()),
            _ => return Err(Broken::Tag),
        };
        Ok(())
    }

    /// Goes on behind the end of the group that has begun, and of all those in it.
    fn pass_group(&mut self) -> Result<(), Broken> {
        let number = self.number;
        let mut open = vec![number];
        while let Some(&last) = open.last() {
            if self.at >= self.to {
                return Err(Broken::Truncated);
            }
            match self.tag()? {
                3 if open.len() < LEVELS_MAX => open.push(self.number),
                3 => return Err(Broken::Group),
                4 if self.number == last => drop(open.pop()),
                wire_type => self.value_of(wire_type)?,
            }
        }
        self.number = number;
        Ok(())
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let taken = *self.bytes[self.at..self.to].first_chunk().ok_or(Broken::Truncated)?;
        self.at += N;
        Ok(taken)
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, Broken> {
        match self.bytes[..self.to].get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.longer(),
        }
    }

    fn longer(&mut self) -> Result<u64, Broken> {
        let rest = &self.bytes[self.at..self.to];
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
