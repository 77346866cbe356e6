//! Zones of a picture: polygons in coordinates from 0 to 1, of which a picture's width and height are 1.

/// Corners of a polygon, in order; it is closed by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Polygon(Vec<(f32, f32)>);

/// Why corners make no polygon.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PolygonError {
    /// Fewer than three corners.
    #[error("a zone needs at least three corners, not {corners}")]
    TooFew {
        /// How many there are.
        corners: usize,
    },
    /// A corner is outside of the picture.
    #[error("corner {x},{y} of a zone is outside of the picture: coordinates go from 0 to 1")]
    Outside {
        /// Its coordinate from the left.
        x: f32,
        /// Its coordinate from the top.
        y: f32,
    },
}

impl Polygon {
    /// A polygon of at least three corners, each from (0, 0), the top left, to (1, 1).
    ///
    /// # Errors
    /// If there are fewer, or one is outside.
    pub fn new(corners: &[(f32, f32)]) -> Result<Self, PolygonError> {
        if corners.len() < 3 {
            return Err(PolygonError::TooFew { corners: corners.len() });
        }
        let inside = |v: f32| (0.0..=1.0).contains(&v);
        match corners.iter().find(|(x, y)| !inside(*x) || !inside(*y)) {
            Some(&(x, y)) => Err(PolygonError::Outside { x, y }),
            None => Ok(Self(corners.to_vec())),
        }
    }

    /// The rectangle between two corners.
    ///
    /// # Errors
    /// If one is outside.
    pub fn rectangle(left: f32, top: f32, right: f32, bottom: f32) -> Result<Self, PolygonError> {
        Self::new(&[(left, top), (right, top), (right, bottom), (left, bottom)])
    }

    /// True for a point inside, by the even-odd rule.
    pub fn contains(&self, x: f32, y: f32) -> bool {
        let corners = &self.0;
        let mut inside = false;
        let mut before = corners[corners.len() - 1];
        for &corner in corners {
            let ((x0, y0), (x1, y1)) = (before, corner);
            // Each edge owns its upper end and not its lower one, so that a ray through a corner counts it once.
            if (y0 > y) != (y1 > y) && x < x0 + (y - y0) * (x1 - x0) / (y1 - y0) {
                inside = !inside;
            }
            before = corner;
        }
        inside
    }
}

/// What of a picture counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Zones {
    /// Only what is in one of these; everything, if there are none.
    pub include: Vec<Polygon>,
    /// Nothing that is in one of these.
    pub ignore: Vec<Polygon>,
}

impl Zones {
    /// True for a point that counts.
    pub fn contains(&self, x: f32, y: f32) -> bool {
        (self.include.is_empty() || self.include.iter().any(|p| p.contains(x, y)))
            && !self.ignore.iter().any(|p| p.contains(x, y))
    }

    /// Which cells of a grid count, by their centres, row by row.
    pub fn cells(&self, columns: usize, rows: usize) -> Vec<bool> {
        let centre = |i: usize, n: usize| (i as f32 + 0.5) / n as f32;
        let cell = |i: usize| self.contains(centre(i % columns, columns), centre(i / columns, rows));
        (0..columns * rows).map(cell).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_inside_or_not() {
        // An L.
        let l =
            Polygon::new(&[(0.1, 0.1), (0.5, 0.1), (0.5, 0.5), (0.9, 0.5), (0.9, 0.9), (0.1, 0.9)]).unwrap();
        for (x, y, inside) in [
            (0.2, 0.2, true),
            (0.7, 0.7, true),
            (0.2, 0.8, true),
            (0.7, 0.2, false),
            (0.05, 0.5, false),
            (0.95, 0.7, false),
            (0.3, 0.95, false),
            // A ray along an edge and through corners.
            (0.0, 0.5, false),
            (0.3, 0.5, true),
            (0.0, 0.1, false),
        ] {
            assert_eq!(l.contains(x, y), inside, "{x},{y}");
        }
    }

    #[test]
    fn cells_count_by_their_centres() {
        let zones = Zones {
            include: vec![Polygon::rectangle(0.0, 0.0, 0.5, 1.0).unwrap()],
            ignore: vec![Polygon::rectangle(0.0, 0.0, 1.0, 0.5).unwrap()],
        };
        let cells = zones.cells(4, 4);
        let counted: Vec<usize> = (0..16).filter(|&i| cells[i]).collect();
        assert_eq!(counted, [8, 9, 12, 13]);
        assert!(Zones::default().cells(3, 2).iter().all(|&c| c));
    }

    #[test]
    fn corners_that_make_no_polygon_are_refused() {
        assert!(matches!(Polygon::new(&[(0.0, 0.0), (1.0, 1.0)]), Err(PolygonError::TooFew { corners: 2 })));
        for corner in [(1.5, 0.5), (0.5, -0.1), (f32::NAN, 0.5)] {
            assert!(matches!(
                Polygon::new(&[(0.0, 0.0), (1.0, 0.0), corner]),
                Err(PolygonError::Outside { .. })
            ));
        }
    }
}
