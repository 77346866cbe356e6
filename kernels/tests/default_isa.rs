//! The default instruction set is one for the whole process: this file has a process of its own.

use palmtop_kernels::{Isa, IsaError, Kernels, set_default_isa};

#[test]
fn the_default_is_set_once_and_an_instruction_set_of_ones_own_goes_before_it() {
    let foreign = Isa::ALL.into_iter().find(|isa| !isa.is_available()).expect("no CPU has all");
    assert_eq!(set_default_isa(foreign), Err(IsaError::Unavailable { isa: foreign }));
    assert_eq!(set_default_isa(Isa::Scalar), Ok(()));
    assert_eq!(set_default_isa(Isa::Scalar), Ok(()), "it is that already");
    assert_eq!(Kernels::select().unwrap().isa(), Isa::Scalar);
    for isa in Isa::available().filter(|&isa| isa != Isa::Scalar) {
        assert_eq!(set_default_isa(isa), Err(IsaError::DefaultIsSet { default: Isa::Scalar, asked: isa }));
        assert_eq!(Kernels::new(Some(isa)).unwrap().isa(), isa);
    }
    assert_eq!(Kernels::new(None).unwrap().isa(), Isa::Scalar);
    assert_eq!(Kernels::new(Some(foreign)).err(), Some(IsaError::Unavailable { isa: foreign }));
}

#[test]
fn names_are_read_back_and_errors_say_what_there_is() {
    for isa in Isa::ALL {
        assert_eq!(isa.to_string().parse(), Ok(isa));
    }
    for name in ["", "AVX2", "avx2 ", "mmx"] {
        let error = name.parse::<Isa>().unwrap_err();
        assert_eq!(error, IsaError::Unknown { name: name.to_owned() });
        assert!(Isa::ALL.into_iter().all(|isa| error.to_string().contains(isa.name())), "{error}");
    }
    let said = IsaError::Unavailable { isa: Isa::Amx }.to_string();
    let listed: Vec<&str> = said.split("one of ").nth(1).unwrap().split(", ").collect();
    assert_eq!(listed, Isa::available().map(Isa::name).collect::<Vec<_>>(), "{said}");
}
