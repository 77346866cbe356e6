//! What a hub, or a network before it, answers instead of a model, and what palmtop says then.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{ID, Setting, WEIGHTS, reply, wanted};
use palmtop_hub::{Follower, HubError, Token, pull};
use palmtop_tests::hub::Reply;

#[test]
fn gates_say_which_page_to_visit_and_what_to_set() {
    let mut setting = Setting::new("tiny1");
    let refused = |setting: &Setting| {
        let error = setting.pull().unwrap_err();
        assert!(!setting.target().exists() && !setting.part().exists(), "nothing is left");
        (error.to_string(), error.hint().unwrap_or_default())
    };
    let page = format!("{}/{ID}", setting.settings.endpoint);
    setting.hub.state().repos.get_mut(ID).unwrap().gated = true;
    let (error, hint) = refused(&setting);
    assert_eq!(error, format!("{ID} is gated, and no token says who asks"));
    assert!(hint.contains(&page) && hint.contains("set HF_TOKEN"), "{hint}");
    setting.set_token();
    setting.hub.state().repos.get_mut(ID).unwrap().refused = true;
    let (error, hint) = refused(&setting);
    assert_eq!(error, format!("{ID} is gated, and the account of this token has no access to it"));
    assert!(hint.contains(&page), "{hint}");
    setting.settings.token = Token::new("hf_old", "/home/a/token").unwrap();
    let (error, hint) = refused(&setting);
    assert_eq!(error, "the token in /home/a/token is wrong or has expired");
    assert!(hint.contains("settings/tokens"), "{hint}");
    setting.settings.token = None;
    let other = |name: &str| setting.pull_as(&wanted(name), &()).unwrap_err();
    let error = other("google/nothing").to_string();
    assert!(error.contains("has no repository google/nothing, or it is private or gated"), "{error}");
    let error = other(&format!("{ID}@old")).to_string();
    assert_eq!(error, format!("{ID} has no revision old"));
    assert!(!error.contains("hf_"), "a token is shown nowhere");
}

#[test]
fn too_many_requests_are_waited_for_if_it_is_not_too_long() {
    let setting = Setting::new("tiny1");
    let mut replies = vec![
        reply("/api/models", 1, 429, &[("retry-after", "0")]),
        reply("/api/models", 1, 429, &[("ratelimit", "\"api\";r=0;t=0")]),
        reply("/resolve/", 1, 503, &[]),
        // An address that was signed for a while.
        reply("signed=1", 1, 403, &[]),
    ];
    setting.hub.state().replies.extend(replies.drain(..));
    setting.pull().unwrap();
    setting.assert_pulled();
    std::fs::remove_file(setting.target()).unwrap();
    setting.hub.state().replies.push_back(reply("/api/models", 1, 429, &[("retry-after", "3600")]));
    let error = setting.pull().unwrap_err();
    assert!(error.to_string().ends_with("it asks to wait 3600 s"), "{error}");
    assert!(error.hint().unwrap().contains("HF_TOKEN"));
}

#[test]
fn a_web_page_is_no_model() {
    let setting = Setting::new("tiny1");
    setting.hub.state().is_portal = true;
    let error = setting.pull().unwrap_err();
    let host = setting.settings.host();
    assert_eq!(error.to_string(), format!("{host} answered with a web page instead of {ID}"));
    assert!(error.hint().unwrap().contains("log in to this network"));
    setting.hub.state().is_portal = false;
    // A redirect to a page, as such networks do it.
    let to = format!("{}/welcome", setting.settings.endpoint);
    setting.hub.state().replies.push_back(reply("/api/models", 1, 302, &[("location", &to)]));
    let page = Reply { body: "<html>".into(), ..reply("/welcome", 1, 200, &[("content-type", "text/html")]) };
    setting.hub.state().replies.push_back(page);
    assert!(matches!(setting.pull().unwrap_err(), HubError::Portal { .. }));
    // In the middle of it.
    let page = Reply { body: "<html>".into(), ..reply(WEIGHTS, 1, 200, &[("content-type", "text/html")]) };
    setting.hub.state().replies.push_back(page);
    let error = setting.pull().unwrap_err().to_string();
    assert!(error.ends_with(&format!("instead of {WEIGHTS} of {ID}")), "{error}");
}

#[test]
fn redirects_go_neither_on_for_ever_nor_out_of_tls() {
    let setting = Setting::new("tiny1");
    let to = format!("{}/api/models/again", setting.settings.endpoint);
    setting.hub.state().replies.push_back(reply("/api/models", 100, 302, &[("location", &to)]));
    let error = setting.pull().unwrap_err().to_string();
    assert!(error.ends_with("redirects again and again"), "{error}");
}

#[test]
fn lies_about_lengths_and_ranges_are_seen() {
    let setting = Setting::new("tiny1");
    let wrong = |headers: &[(&'static str, &str)], status: u16| {
        setting.hub.state().replies.push_back(reply(&format!("{WEIGHTS}?signed"), 1, status, headers));
        let error = setting.pull().unwrap_err().to_string();
        assert!(!setting.target().exists());
        error
    };
    let error = wrong(&[("content-range", "bytes 5-9/1486566")], 206);
    assert!(error.ends_with(&format!("sends {WEIGHTS} from byte 5 instead of 0")), "{error}");
    let error = wrong(&[("content-range", "bytes 0-9/10")], 206);
    assert!(error.contains("with 10 bytes, and it has 1486566"), "{error}");
    let error = wrong(&[], 206);
    assert!(error.contains("does not tell which part"), "{error}");
    let error = wrong(&[], 200);
    assert!(error.contains("with 4 bytes, and it has"), "{error}");
}

#[test]
fn repositories_without_weights_say_what_they_have() {
    let setting = Setting::new("tiny1");
    for (file, says) in [
        ("model.npz", "as .npz"),
        ("model.gguf", "holds GGUF"),
        ("pytorch_model.bin", "pickle format"),
        ("README.md", "neither a .palm file nor weights"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(file), "x").unwrap();
        setting.hub.add("me/other", folder.path(), 'b');
        let error = setting.pull_as(&wanted("me/other"), &()).unwrap_err().to_string();
        assert!(error.starts_with("me/other: ") && error.contains(says), "{error}");
    }
}

#[test]
fn a_hub_that_is_not_there_is_named() {
    let mut setting = Setting::new("tiny1");
    setting.settings.endpoint = "http://127.0.0.1:1".into();
    let cancelled = Arc::new(AtomicBool::new(false));
    let after_a_while = cancelled.clone();
    std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(700));
        after_a_while.store(true, Ordering::SeqCst);
    });
    let follower = Follower {
        progress: &(),
        note: &|_| {},
        cancelled: Arc::new(move || cancelled.load(Ordering::SeqCst)),
    };
    // Tries again and again, until it is told to stop.
    let error = pull(&setting.settings, &wanted(ID), &setting.target(), &follower).unwrap_err();
    assert!(matches!(error, HubError::Cancelled), "{error}");
    assert!(!setting.part().exists());
}

#[test]
fn certificates_that_are_none_are_named() {
    let mut setting = Setting::new("tiny1");
    let file = setting.dir.path().join("ca.pem");
    let mut says = |text: Option<&str>| {
        text.into_iter().for_each(|text| std::fs::write(&file, text).unwrap());
        setting.settings.certificates = Some((file.clone(), "SSL_CERT_FILE"));
        setting.pull().unwrap_err().to_string()
    };
    let error = says(None);
    assert!(error.starts_with("SSL_CERT_FILE: ") && error.contains("ca.pem: "), "{error}");
    let error = says(Some("-----BEGIN NOTHING-----"));
    assert!(error.contains("ca.pem: "), "{error}");
    let error = says(Some(""));
    assert!(error.ends_with("ca.pem: there is no certificate in it"), "{error}");
}
