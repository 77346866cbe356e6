//! probe
use palmtop::image::{ImageLimits, decode_file};
use palmtop::session::{Traced, TracedValues};
use palmtop::{Limits, Session};
use palmtop_convert::Recipe;
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::*;
#[test]
fn probe() {
    for base in ["int8", "vision=f32,int8", "int8,vision=f32", "int8,text=f32", "int8,head=f32", "f32,text=int8", "f32,head=int8", "f32,vision=int8", "int8,patch=f32","int8,projector=f32"] {
        let recipe = Recipe::preset(WeightFormat::Int8).apply(base).unwrap();
        let mut all = vec![];
        for name in ["tiny1", "tiny2"] {
            let m = converted(name, recipe);
            let mut s = Session::new(&m.open(), &Limits::default()).unwrap();
            for v in vectors(name) {
                let picture = decode_file(&v.image, &ImageLimits::default()).unwrap();
                s.trace(picture.view(), &v.prompt, 1, &mut |t: Traced<'_>| {
                    if t.name == "logits.prefill" && let TracedValues::F32(x) = t.values {
                        let x: Vec<f64> = x.iter().map(|&x| x.into()).collect();
                        all.push((relative_error(&x, &v.tensors["logits.prefill"].values) * 1e3).round() / 10.0);
                    }
                }).unwrap();
            }
        }
        println!("PROBE {base:20} {all:?}");
    }
}
