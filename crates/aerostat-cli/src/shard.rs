//! Which shard of a batch this process works through, where a scheduler says so.

use std::env;

use aerostat_jobs::Shard;

use crate::failure::Failure;

/// The shard that the environment names.
pub(crate) fn of_environment() -> Result<Shard, Failure> {
    shard_of(|name| env::var(name).ok().filter(|value| !value.is_empty()))
}

/// The shard that a scheduler gave to this process, as its environment says.
fn shard_of(variable: impl Fn(&str) -> Option<String>) -> Result<Shard, Failure> {
    let number = |name: &str| -> Result<Option<u64>, Failure> {
        let wrong =
            |value: &String| Failure::usage(format!("--shard auto: {name} is {value:?}, not a number"));
        variable(name).map(|value| value.parse().map_err(|_| wrong(&value))).transpose()
    };
    let (index, count) = match number("SLURM_ARRAY_TASK_ID")? {
        // Tasks of an array may begin at any number.
        Some(id) => {
            (id.checked_sub(number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0)), number("SLURM_ARRAY_TASK_COUNT")?)
        }
        None => (number("JOB_COMPLETION_INDEX")?, number("AEROSTAT_SHARDS")?),
    };
    match (index, count) {
        (Some(index), Some(count)) if index < count => Ok(Shard { index, count }),
        (Some(index), Some(count)) => Err(Failure::usage(format!(
            "--shard auto: task {index} of {count}: tasks must be numbered without gaps"
        ))),
        _ => Err(Failure::usage(
            "--shard auto: neither SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT are set, nor JOB_COMPLETION_INDEX and \
             AEROSTAT_SHARDS",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduler_says_which_shard_this_is() {
        let of = |set: &[(&str, &str)]| {
            let found = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            shard_of(found).map_err(Failure::message)
        };
        let (id, count, min) = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN");
        assert_eq!(of(&[(id, "4"), (count, "8"), (min, "1")]), Ok(Shard { index: 3, count: 8 }));
        assert_eq!(of(&[(id, "0"), (count, "8")]), Ok(Shard { index: 0, count: 8 }));
        let kubernetes = [("JOB_COMPLETION_INDEX", "2"), ("AEROSTAT_SHARDS", "3")];
        assert_eq!(of(&kubernetes), Ok(Shard { index: 2, count: 3 }));
        for set in
            [&[][..], &[(id, "4")], &[(id, "9"), (count, "8")], &[(id, "x"), (count, "8")], &kubernetes[..1]]
        {
            assert!(of(set).is_err(), "{set:?}");
        }
    }
}
