//! The only unsafe code of this source: a consumer with partitions assigned by hand, read many messages at a time.
//!
//! rdkafka's own consumers hand out one message for each call and each lock; librdkafka's C interface hands out an array.

use std::ffi::{CStr, CString};
use std::ptr;
use std::slice;
use std::time::Duration;

use rdkafka::bindings as c;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaRespErr, RDKafkaType};
use rdkafka::{Offset, TopicPartitionList};

use super::KafkaOptions;
use super::failure::Failure;
use crate::error::{Error, Kind, Result};
use crate::headers::Known;
use crate::position::Positions;

/// How many messages are taken from librdkafka at a time.
pub(super) const BATCH: usize = 1024;

const OK: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
const EOF: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF;

/// One thing that came from a partition.
pub(super) enum Event<'m> {
    /// A record; `payload` is `None` for a tombstone. `timestamp_ms` is 0 if unknown. `headers` are those of [`Known::ALL`].
    Record { partition: i32, offset: i64, payload: Option<&'m [u8]>, timestamp_ms: i64, headers: Headers<'m> },
    /// Everything before `offset` was handed over, and there is nothing after it yet.
    LogEnd { partition: i32, offset: i64 },
    /// The partition cannot be read.
    Failed { partition: i32, code: Code },
}

/// Those of [`Known::ALL`] that a record has.
pub(super) type Headers<'m> = [Option<&'m [u8]>; Known::ALL.len()];

/// A client that reads. Thread-safe, but for messages: only one thread may call [`Consumer::read`].
pub(super) struct Consumer {
    // Declared first, so dropped first: it must not outlive the client.
    queue: Queue,
    client: Client<Context>,
}

struct Queue(*mut c::rd_kafka_queue_t);

// SAFETY: librdkafka's queues may be used from any thread and from several at once.
unsafe impl Send for Queue {}
unsafe impl Sync for Queue {}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: we own this reference; the client that it belongs to is still alive (field order in `Consumer`).
        unsafe { c::rd_kafka_queue_destroy(self.0) }
    }
}

/// Sends librdkafka's log lines to ours.
struct Context;

impl ClientContext for Context {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::debug!(target: "librdkafka", "{facility} {line}");
    }
}

impl Consumer {
    /// A client for these options. Returns at once; the connection is made when it is needed.
    pub(super) fn connect(options: &KafkaOptions) -> Result<Self> {
        let refused = |why: KafkaError| {
            // The values of settings may be secrets: only librdkafka's own words about its settings as a whole are shown.
            let text = match why {
                KafkaError::ClientCreation(text) => text,
                KafkaError::ClientConfig(_, text, name, _) => format!("{name}: {text}"),
                other => other.to_string(),
            };
            let text = options.kafka.iter().filter(|(_, value)| value.len() > 3).fold(text, |t, (_, v)| t.replace(v, "…"));
            Error::new(Kind::Sql, format!("topic '{}': librdkafka refuses the 'kafka.*' options: {text}", options.topic))
        };
        let config = options.client_config();
        let native = config.create_native_config().map_err(refused)?;
        // SAFETY: `native` is a live configuration that nobody else uses. Errors become events on the main queue.
        unsafe { c::rd_kafka_conf_set_events(native.ptr(), c::RD_KAFKA_EVENT_ERROR) };
        let client = Client::new(&config, native, RDKafkaType::RD_KAFKA_CONSUMER, Context).map_err(refused)?;
        // SAFETY: the client is alive; the reference that is returned is ours and is given back by `Queue`.
        let queue = unsafe { c::rd_kafka_queue_get_consumer(client.native_ptr()) };
        if queue.is_null() {
            return Err(Error::new(Kind::Sql, format!("topic '{}': 'kafka.group.id' must not be empty", options.topic)));
        }
        Ok(Self { queue: Queue(queue), client })
    }

    /// The numbers of the partitions that `topic` has now.
    pub(super) fn partitions(&self, topic: &str, timeout: Duration) -> Result<Vec<i32>, Code> {
        let metadata = self.client.fetch_metadata(Some(topic), timeout).map_err(|why| code_of(&why))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let Some(found) = found else { return Err(Code::UnknownTopicOrPartition) };
        match found.error() {
            Some(code) => Err(code.into()),
            None => Ok(found.partitions().iter().map(|partition| partition.id()).collect()),
        }
    }

    /// The first offset and the log end of a partition; blocks while the broker is asked.
    pub(super) fn watermarks(&self, topic: &str, partition: i32, timeout: Duration) -> Result<(i64, i64), Code> {
        self.client.fetch_watermarks(topic, partition, timeout).map_err(|why| code_of(&why))
    }

    /// The first offset of each partition whose record has this time or a later one; those without such a record are left out.
    pub(super) fn offsets_since(
        &self,
        topic: &str,
        partitions: &[i32],
        time_ms: i64,
        timeout: Duration,
    ) -> Result<Positions, Code> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            list.add_partition_offset(topic, partition, Offset::Offset(time_ms)).map_err(|why| code_of(&why))?;
        }
        // SAFETY: client and list are alive; the list's offsets, which are times, are replaced by what the broker answers.
        let code = unsafe { c::rd_kafka_offsets_for_times(self.client.native_ptr(), list.ptr(), millis(timeout)) };
        if code != OK {
            return Err(code.into());
        }
        let mut found = Positions::default();
        for element in list.elements() {
            element.error().map_err(|why| code_of(&why))?;
            if let Offset::Offset(offset) = element.offset() {
                found.set(element.partition(), offset);
            }
        }
        Ok(found)
    }

    /// The log end that the broker named with its last answer, if there was one. Asks nobody.
    pub(super) fn known_log_end(&self, topic: &CStr, partition: i32) -> Option<i64> {
        let (mut low, mut high) = (-1, -1);
        // SAFETY: all pointers are valid for the call, which keeps none of them.
        let code = unsafe {
            c::rd_kafka_get_watermark_offsets(self.client.native_ptr(), topic.as_ptr(), partition, &mut low, &mut high)
        };
        (code == OK && high >= 0).then_some(high)
    }

    /// Reads these partitions too, each from its offset.
    pub(super) fn assign(&self, topic: &str, from: &[(i32, i64)]) -> Result<()> {
        let failed = |why: String| Error::new(Kind::Bug, format!("partitions of topic '{topic}' cannot be assigned: {why}"));
        let mut list = TopicPartitionList::with_capacity(from.len());
        for &(partition, offset) in from {
            list.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(|why| failed(why.to_string()))?;
        }
        // SAFETY: client and list are alive; the list is copied. The error object, if any, is ours to destroy.
        unsafe {
            let error = c::rd_kafka_incremental_assign(self.client.native_ptr(), list.ptr());
            if error.is_null() {
                return Ok(());
            }
            let why = CStr::from_ptr(c::rd_kafka_error_string(error)).to_string_lossy().into_owned();
            c::rd_kafka_error_destroy(error);
            Err(failed(why))
        }
    }

    /// Waits up to `wait` for the first event, then hands over what is there: at most some [`BATCH`] events, borrowed for the
    /// call. Returns how many.
    pub(super) fn read(&self, wait: Duration, take: &mut dyn FnMut(Event<'_>)) -> usize {
        let mut batch = [ptr::null_mut(); BATCH];
        // The array call waits until the array is full. So the waiting is done for one message, and the rest is taken as it is.
        let mut count = if wait.is_zero() {
            0
        } else {
            // SAFETY: the queue is alive; the message returned, if any, is ours to destroy.
            batch[0] = unsafe { c::rd_kafka_consume_queue(self.queue.0, millis(wait)) };
            usize::from(!batch[0].is_null())
        };
        if count > 0 || wait.is_zero() {
            // SAFETY: the queue is alive, and the free part of the array has the length that is given.
            let more = unsafe { c::rd_kafka_consume_batch_queue(self.queue.0, 0, batch[count..].as_mut_ptr(), BATCH - count) };
            count += usize::try_from(more).unwrap_or(0);
        }
        for &message in &batch[..count] {
            // SAFETY: librdkafka filled the first `count` places with live messages; each is seen, then destroyed, once.
            unsafe {
                take(event(&*message));
                c::rd_kafka_message_destroy(message);
            }
        }
        count
    }

    /// Serves what does not belong to a partition: log lines go to the log. Returns the last error, but for one that says why a broker
    /// cannot be used at all.
    pub(super) fn serve(&self) -> Option<Failure> {
        let mut last: Option<Failure> = None;
        // SAFETY: client and queue are alive; every event is destroyed once, after its strings were read.
        unsafe {
            let main = c::rd_kafka_queue_get_main(self.client.native_ptr());
            loop {
                let event = c::rd_kafka_queue_poll(main, 0);
                if event.is_null() {
                    break;
                }
                match c::rd_kafka_event_type(event) {
                    c::RD_KAFKA_EVENT_ERROR => {
                        let text = CStr::from_ptr(c::rd_kafka_event_error_string(event)).to_string_lossy();
                        tracing::debug!(target: "librdkafka", "{text}");
                        let code = c::rd_kafka_event_error(event).into();
                        if last.as_ref().is_none_or(|before| !before.is_for_good()) {
                            last = Some(Failure { code, reason: text.into_owned() });
                        }
                    }
                    c::RD_KAFKA_EVENT_LOG => {
                        let (mut facility, mut line, mut level) = (ptr::null(), ptr::null(), 0);
                        if c::rd_kafka_event_log(event, &mut facility, &mut line, &mut level) == 0 {
                            let (facility, line) = (CStr::from_ptr(facility), CStr::from_ptr(line));
                            Context.log(RDKafkaLogLevel::Debug, &facility.to_string_lossy(), &line.to_string_lossy());
                        }
                    }
                    _ => {}
                }
                c::rd_kafka_event_destroy(event);
            }
            c::rd_kafka_queue_destroy(main);
        }
        last
    }
}

/// The topic's name as librdkafka takes it.
pub(super) fn c_name(topic: &str) -> Result<CString> {
    CString::new(topic).map_err(|_| Error::new(Kind::Sql, "a topic's name cannot hold a NUL character"))
}

/// # Safety
/// `message` must be a live message of librdkafka; the event borrows its payload.
unsafe fn event(message: &c::rd_kafka_message_t) -> Event<'_> {
    let (partition, offset) = (message.partition, message.offset);
    match message.err {
        OK => {
            let mut kind = c::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            // SAFETY: the message is alive; payload and length describe memory that lives as long as it does.
            let (timestamp_ms, payload, headers) = unsafe {
                let bytes = message.payload as *const u8;
                let payload = (!bytes.is_null()).then(|| slice::from_raw_parts(bytes, message.len));
                (c::rd_kafka_message_timestamp(message, &mut kind), payload, headers(message))
            };
            Event::Record { partition, offset, payload, timestamp_ms: timestamp_ms.max(0), headers }
        }
        EOF => Event::LogEnd { partition, offset },
        code => Event::Failed { partition, code: code.into() },
    }
}

/// The headers of a record that falaj reads. A dead letter is for whoever reads its topic: there the lane says whose letter it is.
///
/// # Safety
/// `message` must be a live message of librdkafka; the values live as long as it does.
unsafe fn headers<'m>(message: &'m c::rd_kafka_message_t) -> Headers<'m> {
    let mut list = ptr::null_mut();
    // SAFETY: the message is alive, and owns the list.
    if unsafe { c::rd_kafka_message_headers(message, &mut list) } != OK {
        return [None; Known::ALL.len()];
    }
    // SAFETY: the list is alive; a value and its size describe memory of the message, which a shared borrow does not change.
    let last = |name: &CStr| unsafe {
        let (mut value, mut size) = (ptr::null(), 0);
        let found = c::rd_kafka_header_get_last(list, name.as_ptr(), &mut value, &mut size) == OK && !value.is_null();
        found.then(|| slice::from_raw_parts::<'m, u8>(value.cast(), size))
    };
    Known::ALL.map(|name| match name {
        Known::Lane => last(c"falaj.dlq.lane").filter(|_| last(c"falaj.dlq.stage").is_none()),
        Known::ValueSchemaId => last(c"__value_schema_id"),
    })
}

fn millis(wait: Duration) -> i32 {
    i32::try_from(wait.as_millis()).unwrap_or(i32::MAX).max(1)
}

fn code_of(why: &KafkaError) -> Code {
    // Every answer to a question has a code; anything else is a client that is going away.
    why.rdkafka_error_code().unwrap_or(Code::Fail)
}
