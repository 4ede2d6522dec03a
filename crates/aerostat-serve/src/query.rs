//! What follows the question mark of a path.

use crate::problem::Problem;

/// Names and values, each name once, but for those of a list (`include`).
pub(crate) fn pairs(query: &str) -> Result<Vec<(&str, &str)>, Problem> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !name.starts_with("include") && pairs.iter().any(|(other, _)| *other == name) {
            return Err(Problem::value(name, format!("`{name}` is there twice")));
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// Refuses all of them.
pub(crate) fn none(query: &str) -> Result<(), Problem> {
    match pairs(query)?.first() {
        Some((name, _)) => {
            Err(Problem::bad("unsupported_parameter", format!("`{name}` is not supported")).about(name))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_there_twice_means_nothing() {
        assert_eq!(pairs("a=1&b&&c=2=3").ok(), Some(vec![("a", "1"), ("b", ""), ("c", "2=3")]));
        assert!(pairs("limit=1&limit=2").is_err() && pairs("include=a&include=b").is_ok());
        assert!(none("").is_ok() && none("&").is_ok() && none("limit=x").is_err());
    }
}
