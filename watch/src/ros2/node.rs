//! A node: what takes part in DDS for a sink and all sources of the same settings, and is announced as ROS does it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use rustdds::bytes::Bytes;
use rustdds::no_key::{DataWriter, DeserializerAdapter, SimpleDataReader};
use rustdds::policy::{Durability, History, ResourceLimits};
use rustdds::{
    DataWriterStatus, DomainParticipant, DomainParticipantBuilder, Duration, GUID, Publisher, QosPolicies,
    QosPolicyBuilder, RTPSEntity, StatusEvented, Subscriber, Topic, TopicKind,
};

use super::messages::{Encoded, Gid, Message, NodeEntitiesInfo, ParticipantEntitiesInfo};
use super::options::{Ros2Error, Ros2Options, Settled};

/// How long a writer waits for room, as in ROS.
const BLOCKING: Duration = Duration::from_millis(100);

/// What reaches whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quality {
    /// Every message, in order: ROS's default.
    Reliable,
    /// The newest message, for pictures: ROS's "sensor data".
    Sensor,
}

impl From<Quality> for QosPolicies {
    fn from(quality: Quality) -> Self {
        // The library's own limits are thousands of messages, or 64 pictures. Messages that a subscriber which hangs has
        // not acknowledged are kept up to the limit, so that the others get theirs until DDS drops it.
        let (depth, kept_max) = match quality {
            Quality::Reliable => (10, 1000),
            Quality::Sensor => (1, 2),
        };
        let limits =
            ResourceLimits { max_samples: kept_max, max_instances: 1, max_samples_per_instance: kept_max };
        let builder = QosPolicyBuilder::new()
            .durability(Durability::Volatile)
            .history(History::KeepLast { depth })
            .resource_limits(limits);
        match quality {
            Quality::Reliable => builder.reliable(BLOCKING).build(),
            Quality::Sensor => builder.best_effort().build(),
        }
    }
}

/// A node. It leaves when it, its writers and its readers are dropped.
pub(crate) struct Node {
    settled: Settled,
    endpoints: Mutex<Endpoints>,
    // Dropped in this order: each needs those below it to leave.
    announcer: DataWriter<Bytes, Encoded>,
    publisher: Publisher,
    subscriber: Subscriber,
    participant: DomainParticipant,
}

/// What a node publishes and subscribes to.
#[derive(Default)]
struct Endpoints {
    readers: Vec<GUID>,
    writers: Vec<GUID>,
}

/// The nodes of this process. DDS wants one participant in a process, not one for each camera.
static NODES: Mutex<Vec<Weak<Node>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn dds(error: impl std::fmt::Display) -> Ros2Error {
    Ros2Error::Dds { why: error.to_string() }
}

impl Node {
    /// The node of these settings.
    pub fn join(options: &Ros2Options) -> Result<Arc<Self>, Ros2Error> {
        let settled = options.settle(|name| std::env::var(name).ok())?;
        // Held while a node is made, so that no second one is.
        let mut nodes = lock(&NODES);
        nodes.retain(|node| node.strong_count() > 0);
        if let Some(node) = nodes.iter().filter_map(Weak::upgrade).find(|node| node.settled == settled) {
            return Ok(node);
        }
        let node = Arc::new(Self::new(settled)?);
        nodes.push(Arc::downgrade(&node));
        Ok(node)
    }

    fn new(settled: Settled) -> Result<Self, Ros2Error> {
        let mut builder = DomainParticipantBuilder::new(settled.domain);
        if !settled.interfaces.is_empty() {
            builder = builder.with_only_networks(settled.interfaces.iter().copied());
        }
        let participant = builder.build().map_err(dds)?;
        let publisher = participant.create_publisher(&Quality::Reliable.into()).map_err(dds)?;
        let subscriber = participant.create_subscriber(&Quality::Sensor.into()).map_err(dds)?;
        // As rmw_dds_common has it: nodes that come later are told, too.
        let quality = QosPolicyBuilder::new()
            .durability(Durability::TransientLocal)
            .reliable(BLOCKING)
            .history(History::KeepLast { depth: 1 })
            .build();
        let kind = ParticipantEntitiesInfo::TYPE.to_owned();
        let topic = participant.create_topic("ros_discovery_info".into(), kind, &quality, TopicKind::NoKey);
        let topic = topic.map_err(dds)?;
        let announcer = publisher.create_datawriter_no_key(&topic, Some(quality)).map_err(dds)?;
        let endpoints = Mutex::default();
        let node = Self { settled, endpoints, announcer, publisher, subscriber, participant };
        node.announce(|_| {});
        Ok(node)
    }

    /// The topic of this name below the node's namespace.
    pub fn topic_below(&self, rest: &str) -> String {
        format!("{}/{rest}", self.settled.namespace)
    }

    /// Publishes a topic, whose name is whole.
    pub fn publish<M: Message>(self: &Arc<Self>, topic: &str, quality: Quality) -> Result<Writer, Ros2Error> {
        let dds_topic = self.topic(topic, M::TYPE, quality)?;
        let writer =
            self.publisher.create_datawriter_no_key(&dds_topic, Some(quality.into())).map_err(dds)?;
        self.announce(|endpoints| endpoints.writers.push(writer.guid()));
        Ok(Writer { topic: topic.into(), writer, readers: Mutex::default(), node: self.clone() })
    }

    /// Subscribes to a topic, whose name is whole.
    pub fn subscribe<D, A>(
        self: &Arc<Self>,
        topic: &str,
        kind: &str,
        quality: Quality,
    ) -> Result<Reader<D, A>, Ros2Error>
    where
        D: 'static,
        A: DeserializerAdapter<D> + 'static,
    {
        let topic = self.topic(topic, kind, quality)?;
        let reader =
            self.subscriber.create_simple_datareader_no_key(&topic, Some(quality.into())).map_err(dds)?;
        self.announce(|endpoints| endpoints.readers.push(reader.guid()));
        Ok(Reader { reader, node: self.clone() })
    }

    fn topic(&self, name: &str, kind: &str, quality: Quality) -> Result<Topic, Ros2Error> {
        // Topics of ROS are those of DDS that begin so.
        let name = format!("rt{name}");
        self.participant.create_topic(name, kind.to_owned(), &quality.into(), TopicKind::NoKey).map_err(dds)
    }

    /// Changes what the node publishes and subscribes to, and tells the others.
    fn announce(&self, change: impl FnOnce(&mut Endpoints)) {
        let mut endpoints = lock(&self.endpoints);
        change(&mut endpoints);
        let gid = |guid| Gid { guid, is_long: self.settled.has_long_ids };
        let namespace = if self.settled.namespace.is_empty() { "/" } else { &self.settled.namespace };
        let message = ParticipantEntitiesInfo {
            gid: gid(self.participant.guid()),
            nodes: vec![NodeEntitiesInfo {
                namespace,
                name: &self.settled.node,
                readers: endpoints.readers.iter().copied().map(gid).collect(),
                writers: endpoints.writers.iter().copied().map(gid).collect(),
            }],
        };
        // Only `ros2 node` looks at it: topics are found without.
        let sent = message.bytes().map(|bytes| self.announcer.write(bytes, None).map_err(|e| e.to_string()));
        if let Err(error) | Ok(Err(error)) = sent {
            log::debug!("the node cannot be announced: {error}");
        }
    }
}

/// Publishes a topic.
pub(crate) struct Writer {
    topic: String,
    writer: DataWriter<Bytes, Encoded>,
    /// How many subscribe to it.
    readers: Mutex<i32>,
    // Dropped after the writer.
    node: Arc<Node>,
}

impl Writer {
    /// Publishes a message.
    ///
    /// # Errors
    /// If subscribers that must get every message have not taken the last ones.
    pub fn send(&self, message: &impl Message) -> Result<(), String> {
        let failed = |why: String| format!("{}: {why}", self.topic);
        let bytes = message.bytes().map_err(failed)?;
        self.writer.write(bytes, None).map_err(|error| {
            failed(match error {
                rustdds::dds::WriteError::WouldBlock { .. } => "a subscriber does not keep up".into(),
                error => error.to_string(),
            })
        })
    }

    /// Waits until all subscribers have all messages; false if they do not by the deadline.
    pub fn is_acknowledged_by(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        self.writer.wait_for_acknowledgments(left).unwrap_or(false)
    }

    /// Whether anybody subscribes.
    pub fn has_readers(&self) -> bool {
        let mut readers = lock(&self.readers);
        while let Some(status) = self.writer.try_recv_status() {
            if let DataWriterStatus::PublicationMatched { current, .. } = status {
                *readers = current.count();
            }
        }
        *readers > 0
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let guid = self.writer.guid();
        self.node.announce(|endpoints| endpoints.writers.retain(|known| *known != guid));
    }
}

/// Subscribes to a topic.
pub(crate) struct Reader<D: 'static, A: DeserializerAdapter<D> + 'static> {
    pub reader: SimpleDataReader<D, A>,
    // Dropped after the reader.
    node: Arc<Node>,
}

impl<D: 'static, A: DeserializerAdapter<D> + 'static> Drop for Reader<D, A> {
    fn drop(&mut self) {
        let guid = self.reader.guid();
        self.node.announce(|endpoints| endpoints.readers.retain(|known| *known != guid));
    }
}
