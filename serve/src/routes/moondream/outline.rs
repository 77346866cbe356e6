//! Masks as SVG paths: along the edges of pixels, so that a path filled by SVG's rule `evenodd` is the mask itself.

use std::fmt::Write;

use palmtop::tasks::Mask;

/// Directions in which an edge runs, the mask on its right hand; each turn to the right is the next one.
const STEPS: [(isize, isize); 4] = [(1, 0), (0, 1), (-1, 0), (0, -1)];

/// The path of a mask in parts of its box, and the box in pixels of the picture: left, top, right, bottom. `None` if
/// the mask is empty.
pub(super) fn outline(mask: &Mask) -> Option<(String, [u32; 4])> {
    let (width, height) = (mask.width() as usize, mask.height() as usize);
    let pixels: Vec<bool> = mask.rows().flatten().collect();
    let (path, [left, top, right, bottom]) = trace(&pixels, width, height)?;
    let (x, y) = (mask.x(), mask.y());
    Some((path, [x + left as u32, y + top as u32, x + right as u32, y + bottom as u32]))
}

/// The same of a grid of pixels.
fn trace(pixels: &[bool], width: usize, height: usize) -> Option<(String, [usize; 4])> {
    let is_set = |x: usize, y: usize| x < width && y < height && pixels[y * width + x];
    let set = (0..width * height).filter(|at| pixels[*at]).map(|at| (at % width, at / width));
    let edges = set.fold(None, |edges: Option<[usize; 4]>, (x, y)| {
        let [left, top, right, bottom] = edges.unwrap_or([x, y, x + 1, y + 1]);
        Some([left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)])
    })?;
    // A bit for each direction in which an edge leaves a corner of pixels.
    let across = width + 1;
    let mut leaving = vec![0u8; across * (height + 1)];
    for y in 0..height {
        for x in (0..width).filter(|x| is_set(*x, y)) {
            let corner = y * across + x;
            let is_open = [
                (y == 0 || !is_set(x, y - 1), corner),
                (!is_set(x + 1, y), corner + 1),
                (!is_set(x, y + 1), corner + across + 1),
                (x == 0 || !is_set(x - 1, y), corner + across),
            ];
            for (direction, (is_open, from)) in is_open.into_iter().enumerate() {
                leaving[from] |= u8::from(is_open) << direction;
            }
        }
    }
    let [left, top, right, bottom] = edges;
    let mut path = String::new();
    let draw = |path: &mut String, command: char, corner: usize| {
        let x = (corner % across - left) as f64 / (right - left) as f64;
        let y = (corner / across - top) as f64 / (bottom - top) as f64;
        // To a ten-thousandth of the box, without zeros that say nothing.
        let short = |part: f64| (part * 1e4).round() / 1e4;
        let _ = write!(path, "{command}{},{}", short(x), short(y));
    };
    for first in 0..leaving.len() {
        while leaving[first] != 0 {
            let mut corner = first;
            let mut direction = leaving[first].trailing_zeros() as usize;
            draw(&mut path, 'M', first);
            loop {
                leaving[corner] &= !(1 << direction);
                let (dx, dy) = STEPS[direction];
                corner = corner.wrapping_add_signed(dx + dy * across as isize);
                if corner == first {
                    break;
                }
                // To the right first: pixels that touch at a corner alone are apart.
                let turned = [1, 0, 3].map(|turn| (direction + turn) % 4);
                let Some(next) = turned.into_iter().find(|next| leaving[corner] & (1 << next) != 0) else {
                    break;
                };
                if next != direction {
                    draw(&mut path, 'L', corner);
                }
                direction = next;
            }
            path.push('Z');
        }
    }
    Some((path, edges))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(rows: &[&str]) -> (Vec<bool>, usize, usize) {
        let pixels = rows.iter().flat_map(|row| row.chars().map(|c| c == '#')).collect();
        (pixels, rows[0].len(), rows.len())
    }

    /// The grid that a path fills by the rule `evenodd`: a pixel is inside if the edges to its left are odd.
    fn filled(path: &str, [left, top, right, bottom]: [usize; 4], width: usize, height: usize) -> Vec<bool> {
        let mut pixels = vec![false; width * height];
        for part in path.split('Z').filter(|part| !part.is_empty()) {
            let points: Vec<(usize, usize)> = part[1..]
                .split('L')
                .map(|point| {
                    let (x, y) = point.split_once(',').unwrap();
                    let whole = |part: &str, from: usize, to: usize| {
                        (part.parse::<f64>().unwrap() * (to - from) as f64).round() as usize + from
                    };
                    (whole(x, left, right), whole(y, top, bottom))
                })
                .collect();
            for (n, (x, y)) in points.iter().enumerate() {
                let (next_x, next_y) = points[(n + 1) % points.len()];
                assert!(*x == next_x || *y == next_y, "{path}");
                for row in *y.min(&next_y)..*y.max(&next_y) {
                    (*x..width).for_each(|column| pixels[row * width + column] ^= true);
                }
            }
        }
        pixels
    }

    #[test]
    fn a_path_fills_what_the_mask_does() {
        let square = grid(&["....", ".##.", ".##."]);
        let (path, edges) = trace(&square.0, square.1, square.2).unwrap();
        assert_eq!((path.as_str(), edges), ("M0,0L1,0L1,1L0,1Z", [1, 1, 3, 3]));
        for rows in [
            &["#"][..],
            &["#.#", ".#.", "#.#"],
            &["#####", "#...#", "#.#.#", "#...#", "#####"],
            &["##..", "##..", "..##", "..##"],
            &[".#.#", "####", ".##.", "#..#"],
        ] {
            let (pixels, width, height) = grid(rows);
            let (path, edges) = trace(&pixels, width, height).unwrap();
            assert_eq!(filled(&path, edges, width, height), pixels, "{rows:?}: {path}");
        }
        assert_eq!(trace(&[false; 6], 3, 2), None);
        assert_eq!(trace(&[], 0, 0), None);
    }
}
