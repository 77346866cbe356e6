//! The products of AMX on CPUs without it: a handler of SIGILL does what each tile instruction says, and goes on behind
//! it. On CPUs with AMX they run as they are. Needs AVX-512, since the rest of these products is made of that.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod common;
#[path = "../../tests/common/skip.rs"]
mod skip;

use std::arch::is_x86_feature_detected as has;
use std::sync::Mutex;

use common::{Quantized, Random, bits, matrix};
use palmtop_kernels::layout::{LANES, MatrixLayout, PackedMatrix, WeightFormat};
use palmtop_kernels::{Isa, Kernels, MatmulInteger, PANEL, PANEL_STRIPES, PanelScratch, matmul_int};

/// The tile unit: rows and bytes of a row as configured, and what is in the registers.
struct Unit {
    configured: bool,
    shape: [(usize, usize); 8],
    tiles: [[[u8; 64]; 16]; 8],
    /// Tile instructions so far.
    count: usize,
}

static UNIT: Mutex<Unit> =
    Mutex::new(Unit { configured: false, shape: [(0, 0); 8], tiles: [[[0; 64]; 16]; 8], count: 0 });

/// Does one instruction.
extern "C" fn on_illegal(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system hands a handler of this kind the registers of the thread, which are nobody else's meanwhile.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    // SAFETY: the instruction that was fetched, and no tile instruction has more than ten bytes; pages of code lie together.
    let code = unsafe { *(registers[libc::REG_RIP as usize] as *const [u8; 10]) };
    match UNIT.lock().unwrap().run(&code, registers) {
        Some(bytes) => registers[libc::REG_RIP as usize] += bytes as i64,
        // Nothing can be unwound here.
        None => std::process::abort(),
    }
}

impl Unit {
    /// Gives the instruction's length, or nothing if it is none of the tile unit's or does not fit what is configured.
    fn run(&mut self, code: &[u8; 10], registers: &[i64]) -> Option<usize> {
        let &[0xC4, rxb_map, w_v_l_pp, opcode, modrm, ..] = code else { return None };
        if rxb_map & 31 != 2 || w_v_l_pp & 0b1000_0100 != 0 {
            return None;
        }
        self.count += 1;
        let prefix = w_v_l_pp & 3;
        let (reg, rm) = (usize::from(modrm >> 3 & 7), usize::from(modrm & 7));
        match (opcode, prefix, modrm >> 6) {
            (0x49, 0, 3) if modrm == 0xC0 => (self.configured, self.tiles) = (false, [[[0; 64]; 16]; 8]),
            (0x49, 3, 3) if self.configured => self.tiles[reg] = [[0; 64]; 16],
            (0x5E, 3, 3) if self.configured => {
                let third = usize::from(!w_v_l_pp >> 3 & 15);
                self.multiply(reg, rm, third)?;
            }
            (0x49, 0, 0..3) if reg == 0 => {
                let (base, _, bytes) = address(rxb_map, modrm, code, registers)?;
                // SAFETY: the instruction reads 64 bytes there.
                let config = unsafe { *(base as *const [u8; 64]) };
                if config[0] != 1 || config[1..16].iter().any(|&b| b != 0) {
                    return None;
                }
                for t in 0..8 {
                    let row_bytes = usize::from(config[16 + 2 * t]) + 256 * usize::from(config[17 + 2 * t]);
                    self.shape[t] = (usize::from(config[48 + t]), row_bytes);
                    if self.shape[t].0 > 16 || row_bytes > 64 {
                        return None;
                    }
                }
                (self.configured, self.tiles) = (true, [[[0; 64]; 16]; 8]);
                return Some(bytes);
            }
            (0x4B, 2 | 3, 0..3) if self.configured => {
                let (base, stride, bytes) = address(rxb_map, modrm, code, registers)?;
                let (rows, row_bytes) = self.shape[reg];
                for (i, row) in self.tiles[reg].iter_mut().enumerate().take(rows) {
                    let place = (base + i as i64 * stride) as *mut u8;
                    // SAFETY: the instruction reads or writes so many bytes of every row.
                    unsafe {
                        if prefix == 3 {
                            row[row_bytes..].fill(0);
                            std::ptr::copy_nonoverlapping(place, row.as_mut_ptr(), row_bytes);
                        } else {
                            std::ptr::copy_nonoverlapping(row.as_ptr(), place, row_bytes);
                        }
                    }
                }
                return Some(bytes);
            }
            _ => return None,
        }
        Some(5)
    }

    /// TDPBSSD: signed bytes times signed bytes, four at a time, added to 32-bit sums.
    fn multiply(&mut self, sums: usize, left: usize, right: usize) -> Option<()> {
        let ((rows, columns), (left_rows, k), (right_rows, right_bytes)) =
            (self.shape[sums], self.shape[left], self.shape[right]);
        let distinct = sums != left && sums != right && left != right;
        if !distinct || left_rows != rows || right_bytes != columns || right_rows * 4 != k {
            return None;
        }
        for m in 0..rows {
            for n in 0..columns / 4 {
                let at = 4 * n..4 * n + 4;
                let mut sum = i32::from_le_bytes(self.tiles[sums][m][at.clone()].try_into().unwrap());
                for i in 0..k {
                    let [a, b] = [self.tiles[left][m][i], self.tiles[right][i / 4][4 * n + i % 4]];
                    sum = sum.wrapping_add(i32::from(a as i8) * i32::from(b as i8));
                }
                self.tiles[sums][m][at].copy_from_slice(&sum.to_le_bytes());
            }
        }
        Some(())
    }
}

/// Base with displacement, index (the stride of tiles), and the length of the instruction, of a memory operand.
fn address(rxb_map: u8, modrm: u8, code: &[u8; 10], registers: &[i64]) -> Option<(i64, i64, usize)> {
    use libc::*;
    const NUMBERS: [c_int; 16] = [
        REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9, REG_R10,
        REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
    ];
    let register = |low: u8, high: u8| registers[NUMBERS[usize::from(low & 7 | (!high & 1) << 3)] as usize];
    let (x, b) = (rxb_map >> 6, rxb_map >> 5);
    let (base, index, mut at) = if modrm & 7 == 4 {
        let sib = code[5];
        // Scale 1; no base that is a number alone.
        if sib >> 6 != 0 || (modrm >> 6 == 0 && sib & 7 == 5) {
            return None;
        }
        let none = sib >> 3 & 7 == 4 && x & 1 == 1;
        (register(sib, b), if none { 0 } else { register(sib >> 3, x) }, 6)
    } else {
        (register(modrm, b), 0, 5)
    };
    let displacement = match modrm >> 6 {
        0 if modrm & 7 == 5 => return None,
        0 => 0,
        1 => i64::from(code[at] as i8),
        _ => i64::from(i32::from_le_bytes(code[at..at + 4].try_into().unwrap())),
    };
    at += [0, 1, 4][usize::from(modrm >> 6)];
    Some((base + displacement, index, at))
}

fn product(multiply: MatmulInteger, w: &PackedMatrix<'_>, x: &Quantized) -> Vec<f32> {
    let stripes = w.layout().stripes();
    let mut scratch = PanelScratch::default();
    let mut all = Vec::new();
    for first in (0..stripes).step_by(PANEL_STRIPES) {
        let part = first..stripes.min(first + PANEL_STRIPES);
        let mut panel = vec![[f32::NAN; PANEL]; x.rows];
        // SAFETY: the CPU has AVX-512, and tile instructions or what does them.
        unsafe { multiply(w, part.clone(), &x.view(), 0..x.rows, &mut scratch, &mut panel) };
        panel.iter().for_each(|row| all.extend_from_slice(&row[..part.len() * LANES]));
    }
    all
}

#[test]
fn products_of_tiles_have_equal_bits() {
    if !(has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vnni")) {
        skip::no_instruction_set("amx, for want of AVX-512");
        return;
    }
    let emulated = !Isa::Amx.is_available();
    if emulated {
        // SAFETY: an empty action, filled in; the handler has the type that the flag promises.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_illegal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()), 0);
        }
    }
    let kernels = Kernels::try_new(Isa::Scalar).expect("plain Rust runs everywhere");
    for format in [WeightFormat::Int8, WeightFormat::Int4] {
        // One to five stripes; chunks of 32 and of 256, whole, cut short, and single.
        for (outputs, cols) in [(64, 512), (49, 31), (16, 513), (80, 768), (112, 833), (33, 1104), (64, 256)]
        {
            let mut r = Random(cols as u64);
            let layout = MatrixLayout::new(format, outputs, cols).unwrap();
            let memory = matrix(&mut r, layout);
            let w = PackedMatrix::new(layout, &memory.as_flattened()[..layout.bytes()]).unwrap();
            for rows in [9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 66] {
                let x = Quantized::new(&kernels, &r.f32s(rows * cols), rows);
                let want = product(matmul_int::scalar::matmul_integer, &w, &x);
                let got = product(matmul_int::amx::matmul_integer, &w, &x);
                assert_eq!(bits(&got), bits(&want), "{format} {outputs}x{cols}, {rows} rows");
            }
        }
    }
    let unit = UNIT.lock().unwrap();
    assert!(!unit.configured, "the unit is given back");
    assert_eq!(unit.count > 0, emulated);
}
