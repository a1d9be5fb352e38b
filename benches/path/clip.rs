//! The pictures that are measured: like a camera's, not like a test card's.
//!
//! A textured scene under a slow pan, three moving objects and sensor noise, 5 s that loop without a cut. A flat
//! synthetic picture would make the encoder look cheap and everything else dear.

use std::f64::consts::TAU;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// Width of the clip in pixels.
pub(crate) const WIDTH: usize = 1280;
/// Height of the clip in pixels.
pub(crate) const HEIGHT: usize = 720;
/// Pictures per second.
pub(crate) const FPS: usize = 30;

const FRAMES: usize = 150;
const SCENE: usize = 2048;

/// Writes the clip into `folder` unless it is there, and returns its path (Y4M, 207 MB).
pub(crate) fn make(folder: &Path) -> std::io::Result<PathBuf> {
    let path = folder.join("camera-like-720p30.y4m");
    if path.exists() {
        return Ok(path);
    }
    println!("making {} ...", path.display());
    let unfinished = path.with_extension("part");
    let mut out = BufWriter::new(File::create(&unfinished)?);
    writeln!(
        out,
        "YUV4MPEG2 W{WIDTH} H{HEIGHT} F{FPS}:1 Ip A1:1 C420jpeg"
    )?;
    let scene = texture();
    let mut rng = fastrand::Rng::with_seed(720);
    for n in 0..FRAMES {
        out.write_all(b"FRAME\n")?;
        out.write_all(&picture(&scene, n, &mut rng))?;
    }
    out.into_inner()
        .map_err(std::io::IntoInnerError::into_error)?
        .sync_all()?;
    std::fs::rename(&unfinished, &path)?;
    Ok(path)
}

/// Value noise in seven octaves, about 1/f: tileable, `SCENE` x `SCENE`.
fn texture() -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut sum = vec![0.0_f32; SCENE * SCENE];
    for octave in 2..9 {
        let cells = 1_usize << octave;
        let lattice: Vec<f32> = (0..cells * cells).map(|_| rng.f32() - 0.5).collect();
        let at = |x: usize, y: usize| lattice[(y % cells) * cells + x % cells];
        let step = SCENE / cells;
        for y in 0..SCENE {
            let (cy, fy) = (y / step, (y % step) as f32 / step as f32);
            for x in 0..SCENE {
                let (cx, fx) = (x / step, (x % step) as f32 / step as f32);
                let top = at(cx, cy) * (1.0 - fx) + at(cx + 1, cy) * fx;
                let bottom = at(cx, cy + 1) * (1.0 - fx) + at(cx + 1, cy + 1) * fx;
                sum[y * SCENE + x] += (top * (1.0 - fy) + bottom * fy) * 300.0
                    / cells.ilog2() as f32
                    / (octave as f32);
            }
        }
    }
    sum.into_iter()
        .map(|v| (120.0 + v).clamp(16.0, 235.0) as u8)
        .collect()
}

fn picture(scene: &[u8], n: usize, rng: &mut fastrand::Rng) -> Vec<u8> {
    let phase = TAU * n as f64 / FRAMES as f64;
    let left = (300.0 + 60.0 * phase.cos()) as usize;
    let top = (300.0 + 30.0 * phase.sin()) as usize;
    let mut planes = Vec::with_capacity(WIDTH * HEIGHT * 3 / 2);
    for y in 0..HEIGHT {
        let row = ((y + top) % SCENE) * SCENE;
        planes.extend((0..WIDTH).map(|x| scene[row + (x + left) % SCENE]));
    }
    for object in 0..3_usize {
        let turn = phase * (object + 1) as f64 + object as f64;
        let x0 = (WIDTH as f64 / 2.0 + 450.0 * turn.cos()) as usize - 60;
        let y0 = (HEIGHT as f64 / 2.0 + 220.0 * turn.sin()) as usize - 60;
        for y in y0..y0 + 120 {
            for x in x0..x0 + 120 {
                planes[y * WIDTH + x] = (60 + 60 * object as u8) ^ ((x - x0) / 8 * 3) as u8;
            }
        }
    }
    // Sensor noise of about one level, 16 pixels from each random word.
    for chunk in planes.chunks_mut(16) {
        let mut bits = rng.u64(..);
        for pixel in chunk {
            *pixel = pixel
                .saturating_add((bits & 3) as u8)
                .saturating_sub((bits >> 2 & 3) as u8);
            bits >>= 4;
        }
    }
    let chroma = |shift: f64| {
        (0..WIDTH * HEIGHT / 4).map(move |i| {
            let (x, y) = (i % (WIDTH / 2), i / (WIDTH / 2));
            (128.0
                + 30.0 * ((x + left) as f64 / 200.0 + shift).sin()
                + 20.0 * ((y + top) as f64 / 150.0).cos()) as u8
        })
    };
    planes.extend(chroma(0.0));
    planes.extend(chroma(1.5));
    planes
}
