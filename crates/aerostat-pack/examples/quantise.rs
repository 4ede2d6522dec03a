//! What a format makes of weights: `quantise FORMAT < IN > OUT`, raw f32 through the format and back, in blocks that run on
//! over the ends of rows. For measurements on models whose widths are no multiples of a block (`bench/quality/`).

use std::io::{Read, Write};

use aerostat_backend::formats;
use aerostat_checkpoint::DType;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1).ok_or("name a format, such as Q4_K")?;
    let dtype = DType::COMPUTABLE.iter().copied().find(|dtype| dtype.name() == name);
    let dtype = dtype.ok_or_else(|| format!("there is no format {name}"))?;
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes)?;
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let threads = std::thread::available_parallelism()?.get();
    let each = values.len().div_ceil(threads).next_multiple_of(dtype.block_len()).max(1);
    let there_and_back = |values: &[f32]| {
        let (mut out, mut back) = (Vec::new(), vec![0.0f32; values.len()]);
        aerostat_pack::quantise(dtype, values, &mut out).map_err(|error| error.to_string())?;
        formats::expand(dtype, &out, &mut back).map_err(|error| error.to_string())?;
        Ok::<_, String>(back)
    };
    let parts: Result<Vec<Vec<f32>>, String> = std::thread::scope(|scope| {
        let workers: Vec<_> =
            values.chunks(each).map(|part| scope.spawn(move || there_and_back(part))).collect();
        let join =
            |worker: std::thread::ScopedJoinHandle<'_, _>| worker.join().map_err(|_| "a thread failed")?;
        workers.into_iter().map(join).collect()
    });
    let back: Vec<u8> = parts?.concat().iter().flat_map(|value| value.to_le_bytes()).collect();
    Ok(std::io::stdout().write_all(&back)?)
}
