//! Brokers that ask who is there.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use palmtop_watch::record::{Phase, Record};
use palmtop_watch::sink::Sink;
use palmtop_watch::sink::mqtt::{MqttOptions, Version};

use crate::broker::{Broker, Listener, has, mosquitto};
use crate::given::{answer, event, logged, message, until};
use crate::{finish, options, setup, start, tell};

const PASSWORD: &str = "pass-that-nobody-sees";

fn run(folder: &Path, program: &str, arguments: &str) {
    let status = Command::new(program)
        .args(arguments.split(' '))
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success(), "{program} {arguments}");
}

/// A certificate authority, and certificates of a broker on this machine and of a client, by the program openssl.
fn certificates(folder: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for ca in ["ca", "other-ca"] {
        run(
            folder,
            "openssl",
            &format!("req -x509 {key} -keyout {ca}.key -out {ca}.pem -days 2 -subj /CN={ca}"),
        );
    }
    fs::write(folder.join("extensions"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    for name in ["broker", "client"] {
        run(folder, "openssl", &format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        let sign = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions";
        run(folder, "openssl", &format!("x509 -req -in {name}.csr {sign} -out {name}.pem"));
    }
}

/// A broker that takes `me` with the password only.
fn with_password(extra: impl Fn(&Path) -> String) -> Option<Broker> {
    mosquitto()?;
    if !has("mosquitto_passwd", "-h", "passwords of MQTT") {
        return None;
    }
    Broker::start(|folder| {
        run(folder, "mosquitto_passwd", &format!("-b -c passwords me {PASSWORD}"));
        fs::write(folder.join("password"), format!("{PASSWORD}\n")).unwrap();
        fs::write(folder.join("wrong"), "wrong").unwrap();
        let file = folder.join("passwords");
        format!("allow_anonymous false\npassword_file {}\n{}", file.display(), extra(folder))
    })
}

fn login(broker: &Broker, version: Version, password: &str) -> MqttOptions {
    MqttOptions {
        user: Some("me".into()),
        password_file: Some(broker.file(password)),
        version,
        ..options(broker)
    }
}

fn listener(broker: &Broker) -> Listener {
    let mut options = rumqttc::MqttOptions::new("listener", "127.0.0.1", broker.port);
    options.set_credentials("me", PASSWORD);
    Listener::with(options)
}

#[test]
fn the_password_is_given_to_the_broker_and_shown_to_nobody() {
    let Some(broker) = with_password(|_| String::new()) else { return };
    let listener = listener(&broker);
    for version in [Version::V5, Version::V3] {
        let options = login(&broker, version, "password");
        assert!(!format!("{options:?}").contains(PASSWORD));
        let (mut sink, _commands) = start(&options, &setup());
        let text = format!("{version:?}");
        tell(&mut sink, Record::Answer(answer("back yard", "scene", &text)));
        listener.expect("palmtop/pi/back_yard/scene/state", &text);
        assert!(!sink.name().contains("me") && !sink.name().contains(PASSWORD));
        assert_eq!(finish(sink), 0);
        listener.expect("palmtop/pi/status", "offline");
    }
    for version in [Version::V5, Version::V3] {
        let (sink, _commands) = start(&login(&broker, version, "wrong"), &setup());
        // Both versions say so in their own words.
        let refused = || {
            logged(&sink.name())
                .iter()
                .filter(|note| note.contains("Connection refused, return code"))
                .count()
        };
        until("it is noted", || refused() > 0);
        drop(sink);
    }
    assert_eq!(listener.text("palmtop/pi/status"), "offline");
    assert!(!logged("rumqttc").is_empty(), "the client logs, so that there is something to check");
    assert_eq!(logged(PASSWORD), Vec::<String>::new());
}

#[test]
fn brokers_are_reached_by_tls_and_only_if_they_can_be_trusted() {
    if mosquitto().is_none() || !has("openssl", "version", "TLS to brokers") {
        return;
    }
    // Clients must show a certificate, too.
    let secure = with_password(|folder| {
        certificates(folder);
        let file = |name: &str| folder.join(name).display().to_string();
        format!(
            "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true",
            file("ca.pem"),
            file("broker.pem"),
            file("broker.key")
        )
    });
    let Some(broker) = secure else { return };
    let options = |version, ca: &str| MqttOptions {
        broker: format!("mqtts://127.0.0.1:{}", broker.port),
        ca_file: Some(broker.file(ca)),
        certificate_file: Some(broker.file("client.pem")),
        key_file: Some(broker.file("client.key")),
        ..login(&broker, version, "password")
    };
    for version in [Version::V5, Version::V3] {
        let (mut sink, _commands) = start(&options(version, "ca.pem"), &setup());
        assert_eq!(sink.name(), format!("mqtts://127.0.0.1:{}", broker.port));
        tell(&mut sink, Record::Event(event("someone", "1", Phase::Begin)));
        // The event is acknowledged, so all of it works.
        assert_eq!(finish(sink), 0);
    }
    let (sink, _commands) = start(&options(Version::V5, "other-ca.pem"), &setup());
    until("it is noted", || logged(&sink.name()).iter().any(|note| note.contains("UnknownIssuer")));
    drop(sink);
    let (sink, _commands) = start(
        &MqttOptions { certificate_file: None, key_file: None, ..options(Version::V5, "ca.pem") },
        &setup(),
    );
    until("it is noted", || logged(&sink.name()).iter().any(|note| note.contains("CertificateRequired")));
    drop(sink);
    assert_eq!(logged(PASSWORD), Vec::<String>::new());

    // What is wrong with files is said at once.
    let refused = |change: &dyn Fn(&mut MqttOptions)| {
        let mut options = options(Version::V5, "ca.pem");
        change(&mut options);
        let (sender, _receiver) = std::sync::mpsc::channel();
        palmtop_watch::sink::mqtt::Mqtt::new(&options, &setup(), sender).err().unwrap().to_string()
    };
    assert!(refused(&|o| o.ca_file = Some(broker.file("none"))).contains("ca_file"));
    assert!(refused(&|o| o.ca_file = Some(broker.file("client.key"))).contains("no certificate in it"));
    assert!(refused(&|o| o.key_file = None).contains("belong together"));
    assert!(
        refused(&|o| o.key_file = Some(broker.file("broker.key"))).contains("certificate_file and key_file")
    );
    assert!(
        refused(&|o| o.password_file = Some(broker.file("none"))).contains("the password cannot be read")
    );
}

#[test]
fn what_the_broker_refuses_is_lost_and_said() {
    let open = Broker::start(|folder| {
        let list = "topic readwrite #\ntopic deny palmtop/pi/front/event\n";
        fs::write(folder.join("access"), list).unwrap();
        format!("allow_anonymous true\nacl_file {}", folder.join("access").display())
    });
    let Some(broker) = open else { return };
    let listener = Listener::new(&broker);
    let (mut sink, _commands) = start(&options(&broker), &setup());
    tell(&mut sink, Record::Event(event("someone", "1", Phase::Begin)));
    let answer = message(Record::Answer(answer("front", "door", "open")));
    until("it is told that an event was refused", || match sink.send(&answer) {
        Ok(()) => false,
        Err(error) => {
            assert_eq!(error.0, "the broker refuses events, or they are too large for it (1 now)");
            true
        }
    });
    assert_eq!(logged("the broker refuses a message: NotAuthorized").len(), 1);
    listener.expect("palmtop/pi/front/door/state", "open");
    assert_eq!(finish(sink), 0);
    assert!(listener.all("front/event").is_empty());
}
