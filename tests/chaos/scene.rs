//! What the chaos happens to: falaj as a process, its servers and receivers, and what was done to them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use falaj::clock::Clock;

use super::compare::Lost;
use super::plan::{End, Moment, Round, Side};
use super::poller::Losses;
use super::receiver::Receiver;
use super::records::Collector;
use super::services::service;
use crate::support::falaj::Falaj;
use crate::support::project::Project;
use crate::support::s3::Server;

/// A round that comes to its first commit later than this is no round.
const COMMIT_WAIT: Duration = Duration::from_secs(60);
/// A bucket is not asked more often for new records.
const BUCKET_LOOK: Duration = Duration::from_millis(100);
/// I12.
const CLEAN_STOP: Duration = Duration::from_secs(5);
/// A process that wakes must see soon that another one has claimed its lanes.
const FENCED_WITHIN: Duration = Duration::from_secs(30);

/// How it says so: the checkpoint, the dead letters or Redis may be the first to refuse it.
const FENCED: [&str; 3] = ["another process", "a newer start of lane", "belongs to a later claim"];

/// Everything that lasts through the run.
pub(super) struct Scene {
    pub(super) project: Project,
    pub(super) binary: PathBuf,
    pub(super) honest: Receiver,
    pub(super) uncertain: Receiver,
    /// With the checkpoint and the files in it, if they are in a bucket.
    pub(super) bucket: Option<Server>,
    pub(super) losses: Losses,
    pub(super) done: Mutex<Done>,
}

/// What was done, and what should not have been seen.
#[derive(Default)]
pub(super) struct Done {
    pub(super) faults: BTreeMap<String, usize>,
    pub(super) kills: Vec<SystemTime>,
    /// When falaj was stopped in another way.
    pub(super) others: Vec<SystemTime>,
    pub(super) lost: Vec<Lost>,
    /// When a server was away, from and to.
    pub(super) away: Vec<(SystemTime, SystemTime)>,
    pub(super) stops: Vec<Duration>,
    pub(super) fenced: Vec<Duration>,
    pub(super) violations: Vec<String>,
}

impl Scene {
    /// Starts falaj.
    pub(super) fn start(&self, more: &[&str]) -> Falaj {
        let mut command = self.project.command_of(&self.binary, &["run", "queries", "--no-web"]);
        Falaj::start(command.args(more).env("PARTNER_URL", self.honest.url()))
    }

    /// Notes something that should not be.
    pub(super) fn violation(&self, what: String) {
        eprintln!("chaos: VIOLATION: {what}");
        self.done.lock().unwrap().violations.push(what);
    }

    fn count(&self, fault: &str) {
        *self.done.lock().unwrap().faults.entry(fault.to_string()).or_default() += 1;
    }

    /// Plays one round; falaj has ended after it.
    pub(super) fn play(&self, round: &Round, collector: &mut Collector) {
        let claims = collector.lanes["top_content"].claims;
        let mut falaj = self.start(&[]);
        self.wait_for(round.at, claims, collector, &mut falaj);
        if !falaj.runs() {
            let (status, said) = falaj.end();
            self.violation(format!("falaj ended by itself with {status}:\n{said}"));
            return;
        }
        match round.end {
            End::Kill => self.kill(falaj),
            End::Terminate => self.terminate(falaj),
            End::Pause(beside) => self.pause(falaj, beside, collector),
        }
        collector.collect();
    }

    fn wait_for(&self, moment: Moment, claims: u64, collector: &mut Collector, falaj: &mut Falaj) {
        match moment {
            Moment::Start(after) => thread::sleep(after),
            Moment::Commit(after) => {
                let began = Instant::now();
                while !collector.has_committed_since("top_content", claims) && falaj.runs() {
                    if began.elapsed() > COMMIT_WAIT {
                        self.violation(format!("no commit within {} s", COMMIT_WAIT.as_secs()));
                        break;
                    }
                    thread::sleep(if self.bucket.is_some() { BUCKET_LOOK } else { Duration::from_millis(2) });
                }
                thread::sleep(after);
            }
        }
    }

    fn kill(&self, falaj: Falaj) {
        self.done.lock().unwrap().kills.push(SystemTime::now());
        let said = falaj.kill();
        self.count("SIGKILL");
        self.check_said(&said);
    }

    /// Nothing that we do may stop a lane for good.
    fn check_said(&self, said: &str) {
        if let Some(line) = said.lines().find(|line| line.contains("ERROR") || line.contains("panicked")) {
            self.violation(format!("falaj said: {line}"));
        }
    }

    fn terminate(&self, falaj: Falaj) {
        let began = Instant::now();
        falaj.terminate();
        self.count("SIGTERM");
        self.done.lock().unwrap().others.push(SystemTime::now());
        match falaj.end_within(CLEAN_STOP * 4) {
            Ok((status, said)) => {
                let took = began.elapsed();
                self.check_said(&said);
                self.done.lock().unwrap().stops.push(took);
                if status.code() != Some(0) || took > CLEAN_STOP {
                    self.violation(format!("SIGTERM: {status} after {} ms:\n{said}", took.as_millis()));
                }
            }
            Err(said) => self.violation(format!("SIGTERM: it does not end:\n{said}")),
        }
    }

    /// The newest claim wins: the second process goes on, the first one, once it wakes, ends and says why.
    fn pause(&self, falaj: Falaj, beside: Duration, collector: &mut Collector) {
        falaj.signal("STOP");
        self.count("SIGSTOP with a second process");
        self.done.lock().unwrap().others.push(SystemTime::now());
        collector.collect();
        let claims = collector.lanes["top_content"].claims;
        let mut second = self.start(&[]);
        self.wait_for(Moment::Commit(beside), claims, collector, &mut second);
        falaj.signal("CONT");
        let woken = Instant::now();
        match falaj.end_within(FENCED_WITHIN) {
            Ok((status, said)) => {
                self.done.lock().unwrap().fenced.push(woken.elapsed());
                let is_why = |line: &str| line.starts_with("falaj: lane '") && FENCED.iter().any(|words| line.contains(words));
                let sentences = said.lines().filter(|line| line.starts_with("falaj: ")).count();
                if status.code() != Some(1) || sentences != 1 || !said.lines().any(is_why) || said.contains("panicked") {
                    self.violation(format!("the process that was paused ended with {status}:\n{said}"));
                }
            }
            Err(said) => self.violation(format!("the process that was paused goes on:\n{said}")),
        }
        if second.runs() {
            self.kill(second);
        } else {
            let (status, said) = second.end();
            self.violation(format!("the second process ended with {status}:\n{said}"));
        }
    }

    /// Breaks something beside falaj. Returns when it is whole again.
    pub(super) fn break_side(&self, side: Side) {
        self.count(&side.to_string());
        match side {
            Side::Redis(away) => self.lose(false, || self.restart("redis", away)),
            Side::Kafka(away) => self.restart("kafka", away),
            Side::Postgres(away) => {
                self.restart("postgres", away);
                self.bucket.iter().for_each(|bucket| self.freeze(bucket, away));
            }
            Side::Flush => self.lose(true, || {
                let mut redis = redis::Client::open(self.project.redis_url.as_str()).unwrap().get_connection();
                let flushed = redis.as_mut().map(|redis| redis::cmd("FLUSHALL").query::<()>(redis));
                if !matches!(flushed, Ok(Ok(()))) {
                    self.violation("Redis does not take FLUSHALL".to_string());
                }
            }),
            Side::Receiver(trouble, lasts) => {
                self.uncertain.set_trouble(Some(trouble));
                thread::sleep(lasts);
                self.uncertain.set_trouble(None);
            }
        }
    }

    /// Kills a server, and starts it again after `away`.
    fn restart(&self, name: &str, away: Duration) {
        let killed = SystemTime::now();
        service(name, "kill");
        thread::sleep(away);
        service(name, "start");
        eprintln!("chaos: {name} was away for {} ms", killed.elapsed().unwrap_or_default().as_millis());
        self.done.lock().unwrap().away.push((killed, SystemTime::now()));
    }

    /// Lets a bucket's server hang, which loses nothing.
    fn freeze(&self, bucket: &Server, away: Duration) {
        self.count("S3 hangs");
        let frozen = SystemTime::now();
        bucket.freeze(true);
        thread::sleep(away);
        bucket.freeze(false);
        self.done.lock().unwrap().away.push((frozen, SystemTime::now()));
    }

    /// Redis loses data while `work` works.
    fn lose(&self, all: bool, work: impl FnOnce()) {
        let clock = Clock::system();
        let before = clock.now_ns();
        self.losses.during(work);
        let at_ns = if all { clock.now_ns() } else { before };
        self.done.lock().unwrap().lost.push(Lost { at_ns, all });
    }
}
