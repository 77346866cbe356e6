//! The client library, which has all of its types twice: for MQTT 3.1.1 and for 5.

use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS as Qos5;
use rumqttc::v5::mqttbytes::v5 as five;
use rumqttc::{QoS as Qos3, TlsConfiguration, Transport, v5};

use super::options::{Broker, Version};

/// Bytes of a message at most that is taken from a broker: our own configuration is the longest that should come.
const INCOMING_BYTES_MAX: u32 = 4 << 20;
/// The protocol's limit, for what is sent.
pub const PACKET_BYTES_MAX: usize = 268_435_455;
/// Messages that have not been acknowledged at most, as the library counts them: more than we ever have under way.
const IN_FLIGHT_MAX: u16 = 100;

/// Sends, from any thread.
#[derive(Clone)]
pub enum Client {
    Three(rumqttc::Client),
    Five(v5::Client),
}

/// A connection that is made, or is.
pub enum Connection {
    Three(Box<rumqttc::Connection>),
    Five(Box<v5::Connection>),
}

/// What a connection says.
#[derive(Debug)]
pub enum Happened {
    /// The broker takes us, and packets of so many bytes at most.
    Connected { packet_bytes_max: usize },
    /// The subscriptions stand, or some are refused.
    Subscribed { is_refused: bool },
    /// The next message that was handed to the client has this number.
    Numbered(u16),
    /// The broker has the message of this number, or will not have it, for this reason.
    Acknowledged(u16, Option<String>),
    /// Somebody else's message.
    Message { topic: String, payload: Vec<u8>, is_retained: bool },
    /// The end of the connection is under way.
    Disconnecting,
    /// Nothing that matters.
    Other,
}

/// The client's queue is full, or it is no more.
pub struct NotTaken;

/// A connection that begins to be made as soon as it is listened to. `will` is what the broker says on a topic, and
/// keeps, if we vanish.
pub fn connect(broker: &Broker, will: (&str, &str), capacity: usize) -> (Client, Connection) {
    let transport = match &broker.tls {
        Some(config) => Transport::tls_with_config(TlsConfiguration::Rustls(config.clone())),
        None => Transport::tcp(),
    };
    match broker.version {
        Version::V3 => {
            let mut options = rumqttc::MqttOptions::new(&broker.client_id, &broker.host, broker.port);
            options.set_last_will(rumqttc::LastWill::new(will.0, will.1, Qos3::AtLeastOnce, true));
            options.set_max_packet_size(INCOMING_BYTES_MAX as usize, PACKET_BYTES_MAX);
            options.set_keep_alive(broker.keep_alive).set_inflight(IN_FLIGHT_MAX).set_transport(transport);
            if let Some((user, password)) = &broker.login {
                options.set_credentials(user, password.reveal());
            }
            let (client, connection) = rumqttc::Client::new(options, capacity);
            (Client::Three(client), Connection::Three(Box::new(connection)))
        }
        Version::V5 => {
            let mut options = v5::MqttOptions::new(&broker.client_id, &broker.host, broker.port);
            options.set_last_will(five::LastWill::new(will.0, will.1, Qos5::AtLeastOnce, true, None));
            options.set_max_packet_size(Some(INCOMING_BYTES_MAX)).set_keep_alive(broker.keep_alive);
            options.set_outgoing_inflight_upper_limit(IN_FLIGHT_MAX).set_transport(transport);
            if let Some((user, password)) = &broker.login {
                options.set_credentials(user, password.reveal());
            }
            let (client, connection) = v5::Client::new(options, capacity);
            (Client::Five(client), Connection::Five(Box::new(connection)))
        }
    }
}

impl Client {
    /// Hands over a message; whether it gets there is heard later. Does not wait.
    pub fn publish(&self, topic: &str, payload: &[u8], is_retained: bool) -> Result<(), NotTaken> {
        match self {
            Self::Three(client) => {
                client.try_publish(topic, Qos3::AtLeastOnce, is_retained, payload).map_err(|_| NotTaken)
            }
            Self::Five(client) => client
                .try_publish(topic, Qos5::AtLeastOnce, is_retained, payload.to_vec())
                .map_err(|_| NotTaken),
        }
    }

    /// Asks for the messages of these topics, in one packet.
    pub fn subscribe(&self, topics: &[&str]) -> Result<(), NotTaken> {
        match self {
            Self::Three(client) => {
                let filters = topics
                    .iter()
                    .map(|&topic| rumqttc::SubscribeFilter::new(topic.into(), Qos3::AtLeastOnce));
                client.try_subscribe_many(filters).map_err(|_| NotTaken)
            }
            Self::Five(client) => {
                let filters = topics.iter().map(|&topic| five::Filter::new(topic, Qos5::AtLeastOnce));
                client.try_subscribe_many(filters).map_err(|_| NotTaken)
            }
        }
    }

    /// Gives up a subscription. All that this is for is to wake who listens to the connection.
    pub fn unsubscribe(&self, topic: &str) {
        // If it is not taken, who listens has much to hear and is awake.
        let _ = match self {
            Self::Three(client) => client.try_unsubscribe(topic).map_err(|_| NotTaken),
            Self::Five(client) => client.try_unsubscribe(topic).map_err(|_| NotTaken),
        };
    }

    /// Ends the connection as it should be: the broker forgets the will.
    pub fn disconnect(&self) {
        let _ = match self {
            Self::Three(client) => client.try_disconnect().map_err(|_| NotTaken),
            Self::Five(client) => client.try_disconnect().map_err(|_| NotTaken),
        };
    }
}

impl Connection {
    /// Waits for what happens next. A connection that is quiet for so long is dead, since both sides speak more often.
    ///
    /// # Errors
    /// Why there is no connection. Another one must be made then.
    pub fn next(&mut self, longest: Duration) -> Result<Happened, String> {
        const DEAD: &str = "the broker has gone quiet";
        match self {
            Self::Three(connection) => match connection.recv_timeout(longest) {
                Ok(Ok(event)) => Ok(of_three(event)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(DEAD.into()),
            },
            Self::Five(connection) => match connection.recv_timeout(longest) {
                Ok(Ok(event)) => Ok(of_five(event)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(DEAD.into()),
            },
        }
    }
}

fn of_outgoing(outgoing: &rumqttc::Outgoing) -> Happened {
    match outgoing {
        rumqttc::Outgoing::Publish(number) => Happened::Numbered(*number),
        rumqttc::Outgoing::Disconnect => Happened::Disconnecting,
        _ => Happened::Other,
    }
}

fn of_three(event: rumqttc::Event) -> Happened {
    use rumqttc::{Event, Packet, SubscribeReasonCode};
    match event {
        Event::Outgoing(outgoing) => of_outgoing(&outgoing),
        Event::Incoming(Packet::ConnAck(_)) => Happened::Connected { packet_bytes_max: PACKET_BYTES_MAX },
        Event::Incoming(Packet::SubAck(ack)) => {
            Happened::Subscribed { is_refused: ack.return_codes.contains(&SubscribeReasonCode::Failure) }
        }
        Event::Incoming(Packet::PubAck(ack)) => Happened::Acknowledged(ack.pkid, None),
        Event::Incoming(Packet::Publish(message)) => Happened::Message {
            topic: message.topic,
            payload: message.payload.to_vec(),
            is_retained: message.retain,
        },
        _ => Happened::Other,
    }
}

fn of_five(event: v5::Event) -> Happened {
    use five::{Packet, PubAckReason, SubscribeReasonCode};
    match event {
        v5::Event::Outgoing(outgoing) => of_outgoing(&outgoing),
        v5::Event::Incoming(Packet::ConnAck(ack)) => {
            let most = ack.properties.and_then(|properties| properties.max_packet_size);
            Happened::Connected { packet_bytes_max: most.map_or(PACKET_BYTES_MAX, |bytes| bytes as usize) }
        }
        v5::Event::Incoming(Packet::SubAck(ack)) => {
            let is_taken = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
            Happened::Subscribed { is_refused: !ack.return_codes.iter().all(is_taken) }
        }
        v5::Event::Incoming(Packet::PubAck(ack)) => {
            let is_taken = matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
            Happened::Acknowledged(ack.pkid, (!is_taken).then(|| format!("{:?}", ack.reason)))
        }
        v5::Event::Incoming(Packet::Publish(message)) => Happened::Message {
            topic: String::from_utf8_lossy(&message.topic).into_owned(),
            payload: message.payload.to_vec(),
            is_retained: message.retain,
        },
        _ => Happened::Other,
    }
}
