//! Filters, and the weights that they give the pixels of an axis.

/// How a picture is resized to the side that the image encoder takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Pillow's bicubic, stretched by the scale when shrinking (antialias): what PaliGemma's processor asks for.
    #[default]
    Bicubic,
    /// Pillow's bilinear, stretched likewise.
    Bilinear,
    /// Bilinear between the four nearest pixels, however much is shrunk: `tf.image.resize` without `antialias`, cut to
    /// bytes, as big_vision's `resize` does.
    BilinearAliased,
}

impl Filter {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bicubic, Self::Bilinear, Self::BilinearAliased];

    /// The name in a model file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bicubic => "bicubic",
            Self::Bilinear => "bilinear",
            Self::BilinearAliased => "bilinear-aliased",
        }
    }

    /// Reach of the kernel on each side, in units of the coarser grid.
    const fn reach(self) -> f64 {
        match self {
            Self::Bicubic => 2.0,
            Self::Bilinear | Self::BilinearAliased => 1.0,
        }
    }

    fn kernel(self, x: f64) -> f64 {
        match self {
            Self::Bicubic => bicubic(x),
            Self::Bilinear | Self::BilinearAliased => (1.0 - x.abs()).max(0.0),
        }
    }
}

impl std::str::FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|filter| filter.name() == text)
            .ok_or_else(|| format!("unknown filter '{text}': use {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// Most source pixels under one window, over all sources of 1 to `side_in_max` pixels.
pub(super) fn taps_max(filter: Filter, side_in_max: u32, side_out: u32) -> usize {
    let reach = Axis::new(filter, side_in_max, side_out).reach;
    let taps = reach.ceil() as usize * 2 + 1;
    taps.min(side_in_max as usize)
}

/// The source pixels that one output pixel is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    pub first: u32,
    pub len: u32,
}

/// Resampling of one axis: Pillow's `precompute_coeffs`, one output pixel at a time.
pub(super) struct Axis {
    filter: Filter,
    side_in: u32,
    /// Source pixels per output pixel.
    scale: f64,
    /// Stretch of the kernel: the scale when shrinking, 1 when growing.
    stretch: f64,
    /// Reach of the stretched kernel on each side, in source pixels.
    reach: f64,
}

impl Axis {
    pub fn new(filter: Filter, side_in: u32, side_out: u32) -> Self {
        let scale = f64::from(side_in) / f64::from(side_out);
        let stretch = scale.max(1.0);
        Self { filter, side_in, scale, stretch, reach: filter.reach() * stretch }
    }

    /// Where output pixel `index` lies on the source.
    fn center(&self, index: u32) -> f64 {
        (f64::from(index) + 0.5) * self.scale
    }

    pub fn window(&self, index: u32) -> Window {
        let center = self.center(index);
        // Casts round towards zero, as C's do.
        let first = ((center - self.reach + 0.5) as i64).max(0);
        let end = ((center + self.reach + 0.5) as i64).min(i64::from(self.side_in));
        Window { first: first as u32, len: (end - first) as u32 }
    }

    /// Weights of the pixels of `window`, summing to 1.
    pub fn fill_weights(&self, index: u32, window: Window, weights: &mut [f64]) {
        let center = self.center(index);
        let per_stretch = 1.0 / self.stretch;
        let mut sum = 0.0;
        for (tap, weight) in weights.iter_mut().enumerate() {
            // Below 2^17, so the sum of integers is exact in f64.
            let position = f64::from(window.first + tap as u32);
            *weight = self.filter.kernel((position - center + 0.5) * per_stretch);
            sum += *weight;
        }
        if sum != 0.0 {
            let per_sum = 1.0 / sum;
            for weight in weights {
                *weight *= per_sum;
            }
        }
    }
}

/// The bicubic kernel of a = -0.5 (Catmull-Rom).
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}
