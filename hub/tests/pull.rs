//! Models are pulled from a hub of our own, over lines that are cut and from repositories that change.

mod common;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{ID, Setting, WEIGHTS, options, ranges, wanted};
use palmtop_convert::{Adapter, ConvertError, Options, Progress, Recipe, convert};
use palmtop_hub::{AdapterSource, HubError, RepositoryName, Wanted};
use palmtop_tests::colpali::{Layout, colpali};
use palmtop_tests::{checkpoint, convert_to, data};

#[test]
fn a_checkpoint_is_converted_as_it_comes_and_the_token_stays_with_the_hub() {
    for name in ["tiny1", "tiny1-sharded"] {
        let mut setting = Setting::new(name);
        setting.set_token();
        setting.hub.state().repos.get_mut(ID).unwrap().gated = true;
        let pulled = setting.pull().unwrap();
        assert_eq!((pulled.commit, pulled.report.unwrap().target), ("a".repeat(40), setting.target()));
        setting.assert_pulled();
        let asked = setting.hub.take_asked();
        assert!(asked.iter().any(|a| a.is_cdn) && asked.iter().any(|a| !a.is_cdn));
        for request in asked {
            let sent = request.authorization.as_deref();
            assert_eq!(sent, (!request.is_cdn).then_some("Bearer hf_right"), "{}", request.path);
        }
    }
}

/// Places of different kinds: in the header's length, in the header, between tensors, in one, before the last byte.
fn places(file: &Path) -> Vec<u64> {
    let bytes = std::fs::read(file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..][..header as usize]).unwrap();
    let ends = json.as_object().unwrap().values().filter_map(|t| t["data_offsets"][1].as_u64());
    let end = ends.map(|end| end + 8 + header).find(|&end| end > bytes.len() as u64 / 2).unwrap();
    vec![3, 8 + header / 2, 8 + header, end, end + 33, bytes.len() as u64 - 1]
}

#[test]
fn lines_that_are_cut_go_on_where_they_were() {
    let setting = Setting::new("tiny1");
    let places = places(&setting.whole.path().join(WEIGHTS));
    // Headers lie in what is asked for first, and come a second time with the rest.
    setting.hub.state().cuts = places.iter().map(|&at| (WEIGHTS.to_owned(), at)).collect();
    setting.pull().unwrap();
    setting.assert_pulled();
    assert!(setting.hub.state().cuts.is_empty(), "all lines were cut");
    let starts: Vec<u64> = ranges(&setting.hub.take_asked(), WEIGHTS).iter().map(|range| range.0).collect();
    for place in places {
        assert!(starts.contains(&place), "{place} is not in {starts:?}");
    }
    assert_eq!(starts.iter().filter(|&&start| start == 0).count(), 2, "nothing else came twice: {starts:?}");
}

#[test]
fn a_server_without_ranges_is_read_from_the_start() {
    let setting = Setting::new("tiny1");
    setting.hub.state().ignores_ranges = true;
    setting.hub.state().cuts = vec![(WEIGHTS.to_owned(), 1_000_000), (WEIGHTS.to_owned(), 500_000)];
    setting.pull().unwrap();
    setting.assert_pulled();
}

#[test]
fn model_files_are_fetched_as_they_are() {
    let (setting, folder) = (Setting::new("tiny1"), tempfile::tempdir().unwrap());
    let model = folder.path().join("small.palm");
    convert_to("tiny1", Recipe::preset("int8".parse().unwrap()), &model);
    setting.hub.add("me/models", folder.path(), 'b');
    setting.hub.state().cuts = vec![("small.palm".to_owned(), 300_000)];
    let bytes = std::fs::read(&model).unwrap();
    for name in ["me/models", "me/models/small.palm", "me/models/small.palm@main"] {
        let (pulled, _) = setting.pull_as(&wanted(name), &()).unwrap();
        assert_eq!((pulled.commit, pulled.bytes), ("b".repeat(40), bytes.len() as u64));
        assert!(pulled.report.is_none());
        assert!(std::fs::read(setting.target()).unwrap() == bytes);
        std::fs::remove_file(setting.target()).unwrap();
    }
    // Half of it is there.
    setting.hub.state().stalls.clear();
    std::fs::create_dir(setting.part()).unwrap();
    std::fs::write(setting.part().join("model"), &bytes[..400_000]).unwrap();
    let hash = {
        use sha2::Digest;
        let hash = sha2::Sha256::digest(&bytes);
        hash.iter().map(|b| format!("{b:02x}")).collect::<String>()
    };
    let begun = serde_json::json!({"path": "small.palm", "sha256": hash});
    std::fs::write(setting.part().join("file.json"), begun.to_string()).unwrap();
    setting.hub.take_asked();
    setting.pull_as(&wanted("me/models"), &()).unwrap();
    assert_eq!(ranges(&setting.hub.take_asked(), "small.palm"), [(400_000, bytes.len() as u64 - 1)]);
    assert!(std::fs::read(setting.target()).unwrap() == bytes);
    std::fs::remove_file(setting.target()).unwrap();
    // One byte is another.
    setting.hub.state().damage = vec![("small.palm".to_owned(), 7000)];
    let error = setting.pull_as(&wanted("me/models"), &()).unwrap_err().to_string();
    assert!(error.starts_with("small.palm: what came has the SHA-256"), "{error}");
    assert!(!setting.target().exists());
    setting.hub.state().damage.clear();
    // Several want to be named, and what is no model is refused.
    let files = &mut setting.hub.state().repos.get_mut("me/models").unwrap().files.clone();
    files.insert("other.palm".into(), b"no model".to_vec());
    setting.hub.state().repos.get_mut("me/models").unwrap().files = files.clone();
    let error = setting.pull_as(&wanted("me/models"), &()).unwrap_err().to_string();
    assert!(error.ends_with("name one: me/models/other.palm, me/models/small.palm"), "{error}");
    let error = setting.pull_as(&wanted("me/models/other.palm"), &()).unwrap_err().to_string();
    assert!(error.contains("other.palm"), "{error}");
    let error = setting.pull_as(&wanted("me/models/third.palm"), &()).unwrap_err();
    assert!(matches!(error, HubError::NoFile { .. }), "{error}");
}

#[test]
fn what_is_damaged_on_its_way_gives_no_model() {
    let setting = Setting::new("tiny1");
    setting.hub.state().damage = vec![(WEIGHTS.to_owned(), 1_000_000)];
    let error = setting.pull().unwrap_err().to_string();
    assert!(error.starts_with("model.safetensors: what came has the SHA-256"), "{error}");
    assert!(!setting.target().exists());
    setting.hub.state().damage.clear();
    setting.pull().unwrap();
    setting.assert_pulled();
    std::fs::remove_file(setting.target()).unwrap();
    setting.hub.state().damage = vec![("tokenizer.json".to_owned(), 100)];
    let error = setting.pull().unwrap_err().to_string();
    assert!(error.starts_with("tokenizer.json: what came has the SHA-256"), "{error}");
}

/// Stops after so many bytes, and notes what the folder held at most.
struct Stop<'a> {
    after: u64,
    come: AtomicU64,
    stopped: AtomicBool,
    folder: &'a Path,
    most: AtomicU64,
    resumed: AtomicU64,
}

impl<'a> Stop<'a> {
    fn after(after: u64, folder: &'a Path) -> Self {
        let (come, most, resumed) = Default::default();
        Self { after, come, stopped: AtomicBool::new(false), folder, most, resumed }
    }
}

impl Progress for Stop<'_> {
    fn advance(&self, bytes: u64) {
        self.most.fetch_max(size(self.folder), Ordering::SeqCst);
        if self.come.fetch_add(bytes, Ordering::SeqCst) + bytes >= self.after {
            self.stopped.store(true, Ordering::SeqCst);
        }
    }
    fn resumed(&self, bytes: u64) {
        self.resumed.store(bytes, Ordering::SeqCst);
    }
    fn cancelled(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

/// Bytes of all files below a folder.
fn size(folder: &Path) -> u64 {
    let of = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => size(&entry.path()),
        _ => entry.metadata().map_or(0, |metadata| metadata.len()),
    };
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(of).sum()
}

#[test]
fn a_pull_goes_on_after_an_end_and_the_disk_holds_little_more_than_the_model() {
    let setting = Setting::new("tiny1-sharded");
    let stop = Stop::after(600_000, setting.dir.path());
    let error = setting.pull_as(&wanted(ID), &stop).unwrap_err();
    assert!(matches!(error, HubError::Cancelled), "{error}");
    assert!(setting.part().join("model").exists() && !setting.target().exists());
    setting.hub.take_asked();
    let rest = Stop::after(u64::MAX, setting.dir.path());
    setting.pull_as(&wanted(ID), &rest).unwrap();
    setting.assert_pulled();
    assert!(rest.resumed.load(Ordering::SeqCst) > 0);
    // The tokenizer and other small files, and the journal.
    let small: u64 = size(setting.whole.path()) - weights(setting.whole.path());
    let most = stop.most.load(Ordering::SeqCst).max(rest.most.load(Ordering::SeqCst));
    let target = std::fs::metadata(setting.target()).unwrap().len();
    assert!(most > target && most < target + small + 100_000, "{most} for {target}");
    // What came before did not come again, but for headers.
    let asked = setting.hub.take_asked();
    let again: u64 = (1..=6)
        .flat_map(|n| ranges(&asked, &format!("model-0000{n}")).split_off(1))
        .map(|(start, end)| end + 1 - start)
        .sum();
    let all = weights(setting.whole.path());
    assert!(again < all - 200_000, "{again} of {all}");
}

fn weights(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let weights = files.filter(|e| e.file_name().to_string_lossy().ends_with(".safetensors"));
    weights.map(|e| e.metadata().unwrap().len()).sum()
}

#[test]
fn a_revision_that_moves_keeps_what_is_the_same() {
    let setting = Setting::new("tiny1");
    let stop = Stop::after(700_000, setting.dir.path());
    setting.pull_as(&wanted(ID), &stop).unwrap_err();
    // Another commit with the same weights: a page was edited.
    setting.hub.state().repos.get_mut(ID).unwrap().commit = "c".repeat(40);
    let rest = Stop::after(u64::MAX, setting.dir.path());
    let (_, notes) = setting.pull_as(&wanted(ID), &rest).unwrap();
    assert_eq!(
        notes,
        [format!(
            "{ID}@main was aaaaaaaa when this pull began, and is cccccccc now; weights that are the same are kept"
        )]
    );
    assert!(rest.resumed.load(Ordering::SeqCst) > 0);
    assert!(std::fs::read(setting.target()).unwrap() == setting.wanted_bytes(&options(), ID, 'c'));
    std::fs::remove_file(setting.target()).unwrap();
    // Other weights.
    let stop = Stop::after(700_000, setting.dir.path());
    setting.pull_as(&wanted(ID), &stop).unwrap_err();
    let other = checkpoint("tiny1-f16");
    setting.hub.add(ID, other.path(), 'd');
    let rest = Stop::after(u64::MAX, setting.dir.path());
    setting.pull_as(&wanted(ID), &rest).unwrap();
    assert_eq!(rest.resumed.load(Ordering::SeqCst), 0);
    let setting = Setting { whole: other, ..setting };
    assert!(std::fs::read(setting.target()).unwrap() == setting.wanted_bytes(&options(), ID, 'd'));
}

#[test]
fn adapters_come_from_folders_and_repositories() {
    let setting = Setting::new("tiny1-f32");
    let adapters = data().join("adapters");
    let mut names: Vec<PathBuf> = std::fs::read_dir(&adapters).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|path| path.join("adapter_config.json").exists());
    names.sort();
    let merges = |path: &&PathBuf| {
        let options = Options { adapters: vec![Adapter::new(path.as_path())], ..options() };
        convert(setting.whole.path(), &setting.dir.path().join("x.palm"), &options, &()).is_ok()
    };
    let adapter = names.iter().find(merges).unwrap();
    let short = adapter.file_name().unwrap().to_str().unwrap();
    setting.hub.add("me/lora", adapter, 'b');
    // What it should give, which is no part of an adapter.
    setting.hub.state().repos.get_mut("me/lora").unwrap().files.retain(|name, _| name.starts_with("adapter"));
    let repository = AdapterSource::Repository(RepositoryName::parse("me/lora").unwrap(), 0.5);
    let folder = AdapterSource::Folder(Adapter { path: adapter.clone(), scale: 0.5 });
    for (source, name) in [(repository, "lora"), (folder, short)] {
        let wanted = Wanted { adapters: vec![source], ..wanted(ID) };
        setting.pull_as(&wanted, &()).unwrap();
        let options = Options { adapters: vec![Adapter { path: adapter.clone(), scale: 0.5 }], ..options() };
        let name = format!("{ID} + {name}=0.5");
        assert!(
            std::fs::read(setting.target()).unwrap() == setting.wanted_bytes(&options, &name, 'a'),
            "{name}"
        );
    }
    let error = setting.pull_as(&wanted("me/lora"), &()).unwrap_err().to_string();
    assert!(error.starts_with("me/lora: holds an adapter"), "{error}");
}

#[test]
fn models_for_retrieval_come_in_each_of_their_layouts() {
    let mut setting = Setting::new("tiny1");
    for layout in Layout::ALL {
        setting.whole = colpali(layout);
        setting.hub.add("vidore/colpali", setting.whole.path(), 'c');
        let (_, notes) = setting.pull_as(&wanted("vidore/colpali"), &()).unwrap();
        assert!(notes.is_empty(), "{notes:?}");
        let bytes = std::fs::read(setting.target()).unwrap();
        assert!(bytes == setting.wanted_bytes(&options(), "vidore/colpali", 'c'), "{layout:?}");
    }
    // An adapter, and its base.
    let (adapter, id) = (data().join("retrieval/adapter"), "vidore/colpali-v1");
    setting.whole = colpali(Layout::Engine);
    setting.hub.add("vidore/base", setting.whole.path(), 'd');
    setting.hub.add(id, &adapter, 'e');
    let source = AdapterSource::Repository(RepositoryName::parse(id).unwrap(), 1.0);
    setting.pull_as(&Wanted { adapters: vec![source], ..wanted("vidore/base") }, &()).unwrap();
    let with_adapter = Options { adapters: vec![Adapter::new(adapter)], ..options() };
    let bytes = std::fs::read(setting.target()).unwrap();
    assert!(bytes == setting.wanted_bytes(&with_adapter, "vidore/base + colpali-v1", 'd'));
    match setting.pull_as(&wanted(id), &()).unwrap_err() {
        HubError::Convert(ConvertError::OnlyAdapter { base, .. }) => {
            assert_eq!(base.as_deref(), Some("vidore/colpaligemma-3b-pt-448-base"));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn the_hubs_cache_is_used_and_offline_means_offline() {
    let mut setting = Setting::new("tiny1");
    setting.settings.offline = Some("HF_HUB_OFFLINE");
    let error = setting.pull().unwrap_err();
    assert!(error.to_string().contains("HF_HUB_OFFLINE forbids"), "{error}");
    let repository = setting.settings.cache.join("models--google--paligemma-test");
    let snapshot = repository.join("snapshots").join("a".repeat(40));
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(repository.join("refs")).unwrap();
    std::fs::write(repository.join("refs/main"), "a".repeat(40)).unwrap();
    for entry in std::fs::read_dir(setting.whole.path()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, snapshot.join(path.file_name().unwrap())).unwrap();
    }
    setting.hub.take_asked();
    for name in [ID.to_owned(), format!("{ID}@{}", "a".repeat(40)), format!("{ID}@aaaaaaaa")] {
        let (pulled, notes) = setting.pull_as(&wanted(&name), &()).unwrap();
        assert!(pulled.report.is_some());
        assert_eq!(notes, [format!("{ID} is in the hub's cache: commit aaaaaaaa is converted from there")]);
        setting.assert_pulled();
    }
    assert!(setting.hub.take_asked().is_empty(), "the network was not used");
    // Half a checkpoint is none.
    std::fs::remove_file(snapshot.join(WEIGHTS)).unwrap();
    assert!(matches!(setting.pull().unwrap_err(), HubError::Offline { .. }));
    setting.settings.offline = None;
    setting.pull().unwrap();
    setting.assert_pulled();
}
