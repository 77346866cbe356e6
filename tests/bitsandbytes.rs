//! Weights that bitsandbytes quantized, read to the bits that it reads (`data/bitsandbytes/make_quantized.py`).

use std::collections::BTreeMap;
use std::path::Path;

use palmtop_convert::{Options, convert};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::{checkpoint, checkpoint_tensors, data, tensors, uniform};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// Tensors by their names: type, shape and bytes.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn load(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let one =
        |(name, t): (String, TensorView<'_>)| (name, (t.dtype(), t.shape().to_vec(), t.data().to_vec()));
    file.tensors().into_iter().map(one).collect()
}

fn save(tensors: &Tensors, path: &Path) {
    let views = tensors.iter().map(|(n, (d, s, b))| (n, TensorView::new(*d, s.clone(), b).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

#[test]
fn quantized_weights_are_read_to_the_bit() {
    let folder = checkpoint("tiny1-f32");
    let path = folder.path().join("model.safetensors");
    let mut all = load(&path);
    all.extend(load(&data().join("bitsandbytes/quantized.safetensors")));
    save(&all, &path);
    let target = folder.path().join("model.palm");
    let options = Options { recipe: uniform(WeightFormat::F32), ..Options::default() };
    let report = convert(folder.path(), &target, &options, &()).unwrap();
    for says in ["6 matrices were read from 4 bits of bitsandbytes", "2 matrices were read from 8 bits"] {
        assert!(report.notes.iter().any(|note| note.contains(says)), "{says}: {:?}", report.notes);
    }
    let got = checkpoint_tensors(&target);
    let expected = tensors(&data().join("bitsandbytes/expected.safetensors"));
    let names: Vec<&str> = expected.keys().filter_map(|key| key.strip_suffix(".row")).collect();
    assert_eq!(names.len(), 8);
    for name in names {
        let rows = &got[name];
        let first: Vec<f64> = rows[0].iter().map(|&w| w.into()).collect();
        assert_eq!(first, expected[&format!("{name}.row")].values, "{name}");
        let bits = || rows.iter().flatten().map(|w| u64::from(w.to_bits()));
        let sums = [bits().sum::<u64>(), bits().zip(1..).map(|(bits, n)| bits * n).sum()];
        assert_eq!(sums.map(|s| s as f64).to_vec(), expected[&format!("{name}.bits")].values, "{name}");
    }
}
