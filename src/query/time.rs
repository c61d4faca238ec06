//! `now()` and its like, answered by the epoch: plans are made once, so the time must not become a literal in them.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

const DAY_NS: i64 = 86_400_000_000_000;

/// The time that `now()` answers within a lane, ns since 1970. Set from the intent, before the plan runs.
#[derive(Debug, Clone, Default)]
pub struct EpochTime(Arc<AtomicI64>);

impl EpochTime {
    /// From now on `now()` is this.
    pub fn set(&self, now_ns: i64) {
        self.0.store(now_ns, Ordering::Relaxed);
    }

    /// The functions that read this time; they take the place of DataFusion's own of the same names.
    pub fn functions(&self) -> Vec<Arc<ScalarUDF>> {
        [Answer::Now, Answer::Date, Answer::Time]
            .into_iter()
            .map(|answer| {
                let aliases = match answer {
                    Answer::Now => vec!["current_timestamp".to_string()],
                    Answer::Date => vec!["today".to_string()],
                    Answer::Time => Vec::new(),
                };
                let function = EpochTimeFunction {
                    answer,
                    time: self.clone(),
                    signature: Signature::nullary(Volatility::Volatile),
                    aliases,
                };
                Arc::new(ScalarUDF::from(function))
            })
            .collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    Now,
    Date,
    Time,
}

/// Declared volatile so that no optimizer folds it; within an epoch it always answers the same.
#[derive(Debug)]
struct EpochTimeFunction {
    answer: Answer,
    time: EpochTime,
    signature: Signature,
    aliases: Vec<String>,
}

impl PartialEq for EpochTimeFunction {
    fn eq(&self, other: &Self) -> bool {
        self.answer == other.answer
    }
}

impl Eq for EpochTimeFunction {}

impl Hash for EpochTimeFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.answer.hash(state);
    }
}

/// Whether `name` is one of the functions that answer the epoch's time.
pub fn is_epoch_time(name: &str) -> bool {
    matches!(name, "now" | "current_timestamp" | "current_date" | "today" | "current_time")
}

impl ScalarUDFImpl for EpochTimeFunction {
    fn name(&self) -> &str {
        match self.answer {
            Answer::Now => "now",
            Answer::Date => "current_date",
            Answer::Time => "current_time",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.answer {
            Answer::Now => DataType::Timestamp(TimeUnit::Nanosecond, None),
            Answer::Date => DataType::Date32,
            Answer::Time => DataType::Time64(TimeUnit::Nanosecond),
        })
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let now_ns = self.time.0.load(Ordering::Relaxed);
        Ok(ColumnarValue::Scalar(match self.answer {
            Answer::Now => ScalarValue::TimestampNanosecond(Some(now_ns), None),
            Answer::Date => ScalarValue::Date32(i32::try_from(now_ns.div_euclid(DAY_NS)).ok()),
            Answer::Time => ScalarValue::Time64Nanosecond(Some(now_ns.rem_euclid(DAY_NS))),
        }))
    }
}
