//! Events into Kafka: one thread, no future per message, as fast as librdkafka takes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

use super::{GenerateArgs, Generated, Job};
use crate::error::{Error, Kind, Result};

/// How long brokers may take to answer before we say that they are not there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at the clock, the errors and the progress.
const EVENTS_PER_LOOK: u64 = 4096;

/// Makes the topic if it is missing, and produces the job's events.
pub(super) async fn produce(job: Job, args: &GenerateArgs) -> Result<Generated> {
    create_topic(args).await?;
    let args = args.clone();
    tokio::task::spawn_blocking(move || Sender::open(&args)?.send_all(job, &args))
        .await
        .map_err(|cause| Error::new(Kind::Bug, "the thread that produces events ended").because(cause))?
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("client.id", "falaj-generate");
    // Its complaints would break the progress bar; what matters comes back as an error.
    config.set("log.connection.close", "false").set("log_level", "2");
    config
}

async fn create_topic(args: &GenerateArgs) -> Result<()> {
    let failed = |cause| of_error(cause, args);
    let admin: AdminClient<DefaultClientContext> = config(&args.brokers).create().map_err(failed)?;
    // -1: as many copies as the brokers make by default.
    let topic = NewTopic::new(&args.topic, args.partitions, TopicReplication::Fixed(-1));
    let options = AdminOptions::new().request_timeout(Some(ANSWER_TIMEOUT)).operation_timeout(Some(ANSWER_TIMEOUT));
    for answer in admin.create_topics([&topic], &options).await.map_err(failed)? {
        match answer {
            Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(failed(KafkaError::AdminOp(code))),
        }
    }
    Ok(())
}

/// Counts what the brokers refused. Only failures are reported to us: a report for each event would halve the speed.
#[derive(Default)]
struct Failures {
    count: AtomicU64,
    first: Mutex<Option<KafkaError>>,
}

struct Reports(Arc<Failures>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((cause, _)) = result {
            self.0.count.fetch_add(1, Ordering::Relaxed);
            self.0.first.lock().get_or_insert_with(|| cause.clone());
        }
    }
}

struct Sender {
    producer: BaseProducer<Reports>,
    failures: Arc<Failures>,
}

impl Sender {
    fn open(args: &GenerateArgs) -> Result<Self> {
        let failures = Arc::<Failures>::default();
        // With a rate an event must leave at once; without one large batches are what makes it fast.
        let linger_ms = if args.rate.is_some() { "2" } else { "50" };
        let producer = config(&args.brokers)
            .set("enable.idempotence", "true")
            .set("delivery.report.only.error", "true")
            .set("linger.ms", linger_ms)
            .set("batch.size", "1000000")
            .set("batch.num.messages", "10000")
            // The bound in memory.
            .set("queue.buffering.max.messages", "500000")
            .set("queue.buffering.max.kbytes", "262144")
            // The same key goes where Java's producer would put it.
            .set("partitioner", "murmur2_random")
            .set("message.timeout.ms", "60000")
            .create_with_context(Reports(Arc::clone(&failures)))
            .map_err(|cause| of_error(cause, args))?;
        Ok(Self { producer, failures })
    }

    fn send_all(&self, mut job: Job, args: &GenerateArgs) -> Result<Generated> {
        let (mut key, mut payload) = (Vec::with_capacity(16), Vec::with_capacity(512));
        let renumber = args.first_id.map_or(0, |first| first - 1);
        job.start();
        while let Some(due) = job.due() {
            for _ in 0..due.min(EVENTS_PER_LOOK) {
                let mut event = job.next();
                event.id += renumber;
                key.clear();
                event.write_content_id(&mut key);
                payload.clear();
                event.write_json(&mut payload);
                job.poison.spoil(&mut payload);
                self.send(&key, &payload, args)?;
            }
            self.producer.poll(Duration::ZERO);
            if args.rate.is_some() {
                // Until the next events are due.
                std::thread::sleep(Duration::from_millis(1));
            }
            self.check(args)?;
            job.bar.set_position(job.made);
        }
        while self.producer.in_flight_count() > 0 {
            // Ends by itself: after message.timeout.ms everything is confirmed or has failed.
            match self.producer.flush(Duration::from_millis(500)) {
                Ok(()) | Err(KafkaError::Flush(Code::OperationTimedOut)) => self.check(args)?,
                Err(cause) => return Err(of_error(cause, args)),
            }
        }
        self.producer.poll(Duration::ZERO);
        self.check(args)?;
        let confirmed = job.made;
        Ok(job.finish(confirmed))
    }

    fn send(&self, key: &[u8], payload: &[u8], args: &GenerateArgs) -> Result<()> {
        let mut record = BaseRecord::to(&args.topic).key(key).payload(payload);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(Duration::from_millis(5));
                    self.check(args)?;
                }
                Err((cause, _)) => return Err(of_error(cause, args)),
            }
        }
    }

    /// Fails once an event was given up.
    fn check(&self, args: &GenerateArgs) -> Result<()> {
        match self.failures.count.load(Ordering::Relaxed) {
            0 => Ok(()),
            count => {
                let cause = self.failures.first.lock().clone().unwrap_or(KafkaError::Canceled);
                Err(of_error(cause, args).at(format!("{count} events were not confirmed")))
            }
        }
    }
}

fn of_error(cause: KafkaError, args: &GenerateArgs) -> Error {
    let GenerateArgs { topic, brokers, .. } = args;
    let code = match cause {
        KafkaError::AdminOp(code) => Some(code),
        _ => cause.rdkafka_error_code(),
    };
    let (kind, text) = match code {
        Some(Code::InvalidTopic) => {
            (Kind::Usage, format!("'{topic}' cannot be a topic's name; letters, digits, '.', '_' and '-' can"))
        }
        Some(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) => {
            (Kind::Denied, format!("{brokers} refuses to let us write topic '{topic}'; check the rights"))
        }
        Some(Code::MessageSizeTooLarge | Code::PolicyViolation | Code::InvalidPartitions) => {
            (Kind::Refused, format!("{brokers} refuses topic '{topic}' or a record of it"))
        }
        _ => (Kind::Unreachable, format!("Kafka at {brokers} does not take events; is the broker running?")),
    };
    Error::new(kind, text).because(cause)
}
