//! Records that are passed over: many at a time, where to hand over each one would cost more than all else that is done with it.

use std::ptr;

use rdkafka::bindings as c;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{IsError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;

use super::clients::Consumer;

/// How many are taken at a time: their addresses lie on the stack.
const BATCH: usize = 512;

/// What was passed over of a partition.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// The offset behind the last record; none: there was none.
    pub(crate) next: Option<i64>,
    /// Whether the log end came behind it.
    pub(crate) is_end: bool,
    /// What the consumer said beside records, last.
    pub(crate) error: Option<Code>,
}

/// Takes at most `most` records off the queue of `consumer`, of those that are there already, and looks only at the offsets in
/// `partition`. The next `poll` goes on behind them.
pub(crate) fn pass_over(consumer: &Consumer, partition: i32, most: usize) -> Passed {
    let mut batch = [ptr::null_mut(); BATCH];
    let mut passed = Passed::default();
    // SAFETY: the client lives as long as it is borrowed, and the reference to its queue is given back. librdkafka fills the first
    // `count` places, which the array has, with live messages; each is looked at, then destroyed, once.
    unsafe {
        let queue = c::rd_kafka_queue_get_consumer(consumer.client().native_ptr());
        if queue.is_null() {
            return passed;
        }
        let count = c::rd_kafka_consume_batch_queue(queue, 0, batch.as_mut_ptr(), most.min(BATCH));
        c::rd_kafka_queue_destroy(queue);
        for &message in &batch[..usize::try_from(count).unwrap_or(0)] {
            passed.note(&*message, partition);
            c::rd_kafka_message_destroy(message);
        }
    }
    passed
}

impl Passed {
    fn note(&mut self, message: &c::rd_kafka_message_t, partition: i32) {
        match message.err {
            code if !code.is_error() && message.partition == partition => {
                (self.next, self.is_end) = (Some(message.offset + 1), false);
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => self.is_end |= message.partition == partition,
            code if code.is_error() => self.error = Some(code.into()),
            _ => {}
        }
    }
}
