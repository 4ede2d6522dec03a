//! Filters of lists and what is like them.

use std::cmp::Ordering;

use super::arguments::{Given, as_count, as_integer, flag, integer};
use super::ast::Operator;
use super::characters::lower;
use super::compare::{equal, equal_inside, order};
use super::escape::escaped;
use super::execute::Renderer;
use super::limits::{Buffer, Charge, Fault, Outcome};
use super::loops::{Pull, collect};
use super::operators::binary;
use super::print::write_str;
use super::sort::sorted_by;
use super::undefined::Undefined;
use super::value::{Dict, ItemsBuilder, Value, marked};

/// Python takes an integer of 32 bits here.
fn backwards(reverse: &Option<Value>) -> Outcome<bool> {
    let reverse = i32::try_from(integer(reverse, 0)?);
    reverse.map(|reverse| reverse != 0).map_err(|_| Fault::new("Python int too large to convert to C int"))
}

/// A path of attributes and items.
type Path = Vec<Value>;

impl Renderer<'_> {
    pub(super) fn list_filter(&mut self, name: &str, value: &Value, given: Given) -> Outcome<Value> {
        match name {
            "first" => {
                let [] = given.bind(name, [], 0)?;
                let first = Pull::new(value)?.next(&self.heap)?;
                Ok(first.unwrap_or(Value::Undefined(Undefined::Hint("No first item, sequence was empty."))))
            }
            "last" => {
                let [] = given.bind(name, [], 0)?;
                self.last(value)
            }
            "list" => {
                let [] = given.bind(name, [], 0)?;
                collect(value, &self.heap)?.list()
            }
            "reverse" => {
                let [] = given.bind(name, [], 0)?;
                self.reversed(value)
            }
            "join" => {
                let [separator, attribute] = given.bind(name, ["d", "attribute"], 0)?;
                self.join(value, separator, attribute)
            }
            "sum" => {
                let [attribute, start] = given.bind(name, ["attribute", "start"], 0)?;
                let path = self.path_unless_none(attribute)?;
                let mut sum = start.unwrap_or(Value::Int(0));
                if let Value::Text(_) = sum {
                    return Fault::err("sum() can't sum strings [use ''.join(seq) instead]");
                }
                let mut pull = Pull::new(value)?;
                while let Some(item) = pull.next(&self.heap)? {
                    let item = self.follow(item, &path, None)?;
                    sum = binary(Operator::Add, &sum, &item, self.names(), &self.heap)?;
                }
                Ok(sum)
            }
            "batch" => {
                let [count, fill] = given.bind(name, ["linecount", "fill_with"], 1)?;
                self.batch(value, &count.unwrap_or(Value::None), fill)
            }
            _ => {
                let [slices, fill] = given.bind(name, ["slices", "fill_with"], 1)?;
                self.slices(value, &slices.unwrap_or(Value::None), fill)
            }
        }
    }

    fn last(&mut self, value: &Value) -> Outcome<Value> {
        let last = match value {
            Value::List(items) | Value::Tuple(items) => items.last().cloned(),
            Value::Text(text) => match text.chars().next_back() {
                Some(char) => Some(Value::Text(self.heap.new_text(char.to_string().into(), text.safe)?)),
                None => None,
            },
            Value::Dict(dict) => dict.entries().last().map(|(key, _)| key.clone()),
            Value::View(kind, dict) => {
                let entry = dict.entries().last();
                entry.map(|entry| super::compare::view_item(*kind, entry, &self.heap)).transpose()?
            }
            Value::Range(range) => range.len().checked_sub(1).and_then(|at| range.get(at)),
            Value::Undefined(_) => None,
            other => return Fault::err(format!("'{}' object is not reversible", other.type_name())),
        };
        Ok(last.unwrap_or(Value::Undefined(Undefined::Hint("No last item, sequence was empty."))))
    }

    fn reversed(&mut self, value: &Value) -> Outcome<Value> {
        if let Value::Text(text) = value {
            self.heap.read(text.len())?;
            let text_back: String = text.chars().rev().collect();
            return Ok(Value::Text(self.heap.new_text(text_back.into(), text.safe)?));
        }
        let Ok(mut items) = collect(value, &self.heap).map_err(|fault| fault.limit) else {
            Pull::new(value).map_err(|_| Fault::new("argument must be iterable"))?;
            return Err(Fault::limit("too much to reverse"));
        };
        items.values().reverse();
        match value {
            Value::Iterator(_) | Value::Loop(_) => items.list(),
            Value::List(_) => items.iterator("list_reverseiterator", None),
            Value::Dict(_) => items.iterator("dict_reversekeyiterator", None),
            Value::Range(_) => items.iterator("range_iterator", None),
            _ => items.iterator("reversed", None),
        }
    }

    fn join(&mut self, value: &Value, separator: Option<Value>, attribute: Option<Value>) -> Outcome<Value> {
        let path = self.path_unless_none(attribute)?;
        if self.autoescape {
            return self.join_escaped(value, separator, &path);
        }
        let separator = match &separator {
            Some(separator) => Some(super::print::to_text(separator, self.names(), &self.heap)?),
            None => None,
        };
        let mut pull = Pull::new(value)?;
        let mut out = Buffer::new(&self.heap)?;
        let mut first = true;
        while let Some(item) = pull.next(&self.heap)? {
            let item = self.follow(item, &path, None)?;
            if let (false, Some(separator)) = (std::mem::replace(&mut first, false), &separator) {
                out.push(separator)?;
            }
            write_str(&mut out, &item, self.names())?;
        }
        self.heap.built(out)
    }

    /// Where output is escaped: if anything is marked safe, all is, and the rest is escaped.
    fn join_escaped(&mut self, value: &Value, separator: Option<Value>, path: &Path) -> Outcome<Value> {
        let separator = separator.map_or_else(|| self.heap.text(""), Ok)?;
        let mut items = collect(value, &self.heap)?;
        let is_safe = |value: &Value| value.as_text().is_some_and(|text| text.safe);
        let mut safe = is_safe(&separator);
        let mut parts = self.heap.items()?;
        for item in items.values().drain(..) {
            let item = self.follow(item, path, None)?;
            safe |= is_safe(&item);
            parts.push(item)?;
        }
        let mut out = Buffer::new(&self.heap)?;
        for (at, part) in parts.values().iter().enumerate() {
            for value in
                if at > 0 { [Some(&separator), Some(part)] } else { [None, Some(part)] }.into_iter().flatten()
            {
                match safe {
                    true => out.push(&escaped(value, self.names(), &self.heap)?)?,
                    false => write_str(&mut out, value, self.names())?,
                }
            }
        }
        Ok(marked(self.heap.built(out)?, safe))
    }

    fn batch(&mut self, value: &Value, count: &Value, fill: Option<Value>) -> Outcome<Value> {
        let fill = fill.filter(|fill| !matches!(fill, Value::None));
        let mut batches = self.heap.items()?;
        let mut batch = self.heap.items()?;
        let mut is_fresh = true;
        let mut pull = match Pull::new(value) {
            Ok(pull) => pull,
            Err(fault) => return batches.iterator("generator", Some(fault)),
        };
        let is_full = |length: usize| equal(&Value::Int(length as i128), count, &self.heap);
        while let Some(item) = pull.next(&self.heap)? {
            if is_full(batch.values().len())? {
                batches.push(std::mem::replace(&mut batch, self.heap.items()?).list()?)?;
            }
            batch.push(item)?;
            is_fresh = false;
        }
        if !is_fresh {
            if let Some(fill) = fill {
                let length = Value::Int(batch.values().len() as i128);
                match order(&length, count, "<", &self.heap) {
                    Ok(Some(Ordering::Less)) => {
                        let missing = as_count(as_integer(count)?).saturating_sub(batch.values().len());
                        for _ in 0..missing {
                            batch.push(fill.clone())?;
                        }
                    }
                    Ok(_) => {}
                    Err(fault) => return batches.iterator("generator", Some(fault)),
                }
            }
            batches.push(batch.list()?)?;
        }
        batches.iterator("generator", None)
    }

    fn slices(&mut self, value: &Value, slices: &Value, fill: Option<Value>) -> Outcome<Value> {
        let fill = fill.filter(|fill| !matches!(fill, Value::None));
        let mut all = self.heap.items()?;
        let (mut values, count) = match (collect(value, &self.heap), as_integer(slices)) {
            (Ok(values), Ok(count)) if count != 0 => (values, count),
            (Err(fault), _) | (_, Err(fault)) if !fault.limit => {
                return all.iterator("generator", Some(fault));
            }
            (Err(fault), _) | (_, Err(fault)) => return Err(fault),
            _ => return all.iterator("generator", Some(Fault::new("division by zero"))),
        };
        let count = as_count(count);
        let length = values.values().len();
        let (size, extra) = (length.checked_div(count).unwrap_or(0), length.checked_rem(count).unwrap_or(0));
        let mut offset = 0;
        for number in 0..count {
            let start = offset + number * size;
            offset += usize::from(number < extra);
            let end = offset + (number + 1) * size;
            let part = values.values().get(start..end).unwrap_or_default().to_vec();
            let mut slice = self.heap.collected(part)?;
            if let Some(fill) = fill.as_ref().filter(|_| number >= extra) {
                slice.push(fill.clone())?;
            }
            all.push(slice.list()?)?;
        }
        all.iterator("generator", None)
    }

    /// The parts of an attribute's name: digits are numbers, dots stand between them.
    pub(super) fn path(&self, attribute: &Value) -> Outcome<Path> {
        let Value::Text(text) = attribute else { return Ok(vec![attribute.clone()]) };
        let part = |part: &str| {
            let is_number = !part.is_empty() && part.chars().all(super::characters::is_decimal);
            match part.parse().ok().filter(|_| is_number) {
                Some(number) => Ok(Value::Int(number)),
                None => self.heap.text(part),
            }
        };
        text.split('.').map(part).collect()
    }

    fn path_unless_none(&self, attribute: Option<Value>) -> Outcome<Path> {
        match attribute {
            None | Some(Value::None) => Ok(Vec::new()),
            Some(attribute) => self.path(&attribute),
        }
    }

    /// What lies at the end of a path.
    pub(super) fn follow(&mut self, value: Value, path: &Path, default: Option<&Value>) -> Outcome<Value> {
        let mut value = value;
        for part in path {
            self.heap.step(1)?;
            value = self.item(&value, part)?;
            if let (true, Some(default)) = (value.is_undefined(), default) {
                value = default.clone();
            }
        }
        Ok(value)
    }

    /// What is compared instead of a value: texts in small letters, unless case matters.
    fn key(&self, value: Value, case_sensitive: bool) -> Outcome<Value> {
        match &value {
            Value::Text(text) if !case_sensitive => {
                self.heap.look_up(text)?;
                Ok(Value::Text(self.heap.new_text(lower(text).into(), text.safe)?))
            }
            _ => Ok(value),
        }
    }

    pub(super) fn order_filter(&mut self, name: &str, value: &Value, given: Given) -> Outcome<Value> {
        match name {
            "sort" => {
                let [reverse, case_sensitive, attribute] =
                    given.bind(name, ["reverse", "case_sensitive", "attribute"], 0)?;
                self.sort(value, backwards(&reverse)?, flag(&case_sensitive, false), attribute)
            }
            "unique" => {
                let [case_sensitive, attribute] = given.bind(name, ["case_sensitive", "attribute"], 0)?;
                let mut fault = None;
                let mut items = self.heap.items()?;
                if let Err(error) = self.unique(value, flag(&case_sensitive, false), attribute, &mut items) {
                    if error.limit {
                        return Err(error);
                    }
                    fault = Some(error);
                }
                items.iterator("generator", fault)
            }
            "min" | "max" => {
                let [case_sensitive, attribute] = given.bind(name, ["case_sensitive", "attribute"], 0)?;
                self.extreme(value, name == "max", flag(&case_sensitive, false), attribute)
            }
            "groupby" => {
                let [attribute, default, case_sensitive] =
                    given.bind(name, ["attribute", "default", "case_sensitive"], 1)?;
                let default = default.filter(|default| !matches!(default, Value::None));
                self.group(value, &attribute.unwrap_or(Value::None), default, flag(&case_sensitive, false))
            }
            _ => {
                let [case_sensitive, by, reverse] =
                    given.bind(name, ["case_sensitive", "by", "reverse"], 0)?;
                self.sort_dict(value, flag(&case_sensitive, false), by, backwards(&reverse)?)
            }
        }
    }

    /// Room for pairs that are to be sorted, and what it is counted as for as long as they live.
    fn pairs(&self, count: usize) -> Outcome<(Vec<(Value, Value)>, Charge)> {
        let held = self.heap.charge(count.saturating_mul(size_of::<(Value, Value)>()))?;
        Ok((Vec::with_capacity(count), held))
    }

    /// Sorts pairs of a key and a value by their keys.
    fn sorted(&self, mut pairs: Vec<(Value, Value)>, reverse: bool) -> Outcome<Vec<(Value, Value)>> {
        // Merging holds all pairs twice.
        let _merged = self.heap.charge(pairs.len().saturating_mul(size_of::<(Value, Value)>()))?;
        if reverse {
            pairs.reverse();
        }
        let mut sorted = sorted_by(pairs, |one, two| order(&one.0, &two.0, "<", &self.heap))?;
        if reverse {
            sorted.reverse();
        }
        Ok(sorted)
    }

    fn sort(
        &mut self,
        value: &Value,
        reverse: bool,
        case_sensitive: bool,
        attribute: Option<Value>,
    ) -> Outcome<Value> {
        let paths: Vec<Path> = match &attribute {
            None | Some(Value::None) => vec![Vec::new()],
            Some(Value::Text(text)) => {
                let parts = text.split(',').map(|part| self.path(&self.heap.text(part)?));
                parts.collect::<Outcome<_>>()?
            }
            Some(other) => vec![self.path(other)?],
        };
        let mut items = collect(value, &self.heap)?;
        let (mut pairs, _held) = self.pairs(items.values().len())?;
        for item in items.values().drain(..) {
            let mut key = self.heap.items()?;
            for path in &paths {
                let value = self.follow(item.clone(), path, None)?;
                key.push(self.key(value, case_sensitive)?)?;
            }
            pairs.push((key.list()?, item));
        }
        self.heap.list(self.sorted(pairs, reverse)?.into_iter().map(|(_, item)| item))
    }

    fn unique(
        &mut self,
        value: &Value,
        case_sensitive: bool,
        attribute: Option<Value>,
        items: &mut ItemsBuilder,
    ) -> Outcome<()> {
        let path = self.path_unless_none(attribute)?;
        let mut seen = Dict::new(&self.heap)?;
        let mut pull = Pull::new(value)?;
        while let Some(item) = pull.next(&self.heap)? {
            let found = self.follow(item.clone(), &path, None)?;
            let key = self.key(found, case_sensitive)?;
            if seen.get(&key)?.is_none() {
                seen.insert(key, Value::None)?;
                items.push(item)?;
            }
        }
        Ok(())
    }

    fn extreme(
        &mut self,
        value: &Value,
        largest: bool,
        case_sensitive: bool,
        attribute: Option<Value>,
    ) -> Outcome<Value> {
        let path = self.path_unless_none(attribute)?;
        let (operator, wanted) = if largest { (">", Ordering::Greater) } else { ("<", Ordering::Less) };
        let mut pull = Pull::new(value)?;
        let mut best: Option<(Value, Value)> = None;
        while let Some(item) = pull.next(&self.heap)? {
            let found = self.follow(item.clone(), &path, None)?;
            let key = self.key(found, case_sensitive)?;
            let is_better = match &best {
                Some((other, _)) => order(&key, other, operator, &self.heap)? == Some(wanted),
                None => true,
            };
            if is_better {
                best = Some((key, item));
            }
        }
        let none = Value::Undefined(Undefined::Hint("No aggregated item, sequence was empty."));
        Ok(best.map_or(none, |(_, item)| item))
    }

    fn group(
        &mut self,
        value: &Value,
        attribute: &Value,
        default: Option<Value>,
        case_sensitive: bool,
    ) -> Outcome<Value> {
        let path = match attribute {
            Value::None => Vec::new(),
            attribute => self.path(attribute)?,
        };
        let mut items = collect(value, &self.heap)?;
        let (mut pairs, _held) = self.pairs(items.values().len())?;
        for item in items.values().drain(..) {
            let found = self.follow(item.clone(), &path, default.as_ref())?;
            pairs.push((self.key(found, case_sensitive)?, item));
        }
        let mut all = self.heap.items()?;
        let mut group: Option<(Value, ItemsBuilder)> = None;
        for (key, item) in self.sorted(pairs, false)? {
            let same = match &group {
                Some((other, _)) => equal_inside(other, &key, &self.heap)?,
                None => false,
            };
            if let Some(done) = group.take_if(|_| !same) {
                all.push(self.one_group(done, &path, default.as_ref(), case_sensitive)?)?;
            }
            let (_, items) = match &mut group {
                Some(group) => group,
                // Of the first item of a group, the key as it is written there.
                None => group.insert((key, self.heap.items()?)),
            };
            items.push(item)?;
        }
        if let Some(last) = group {
            all.push(self.one_group(last, &path, default.as_ref(), case_sensitive)?)?;
        }
        all.list()
    }

    /// A group with its key, as the first of its items has it.
    fn one_group(
        &mut self,
        (key, mut items): (Value, ItemsBuilder),
        path: &Path,
        default: Option<&Value>,
        case_sensitive: bool,
    ) -> Outcome<Value> {
        let first = items.values().first().cloned();
        let key = match first.filter(|_| !case_sensitive) {
            Some(first) => self.follow(first, path, default)?,
            None => key,
        };
        self.heap.collected([key, items.list()?])?.group()
    }

    fn sort_dict(
        &mut self,
        value: &Value,
        case_sensitive: bool,
        by: Option<Value>,
        reverse: bool,
    ) -> Outcome<Value> {
        let by_value = match by.as_ref().map(Value::as_text) {
            None => false,
            Some(Some(text)) if **text == *"key" => false,
            Some(Some(text)) if **text == *"value" => true,
            Some(_) => return Fault::err("You can only sort by either \"key\" or \"value\""),
        };
        let Value::Dict(dict) = value else {
            if value.is_undefined() {
                return Err(super::value::undefined_fault(value, value));
            }
            return Fault::err(format!("'{}' object has no attribute 'items'", value.type_name()));
        };
        let (mut pairs, _held) = self.pairs(dict.entries().len())?;
        for (key, value) in dict.entries() {
            let sorted_by = if by_value { value } else { key };
            let item = self.heap.tuple([key.clone(), value.clone()])?;
            pairs.push((self.key(sorted_by.clone(), case_sensitive)?, item));
        }
        self.heap.list(self.sorted(pairs, reverse)?.into_iter().map(|(_, item)| item))
    }

    pub(super) fn choice_filter(&mut self, name: &str, value: &Value, given: Given) -> Outcome<Value> {
        let mut items = self.heap.items()?;
        let mut fault = None;
        if value.is_true() {
            let done = match name {
                "map" => self.map(value, given, &mut items),
                _ => self.select(name, value, given, &mut items),
            };
            if let Err(error) = done {
                if error.limit {
                    return Err(error);
                }
                fault = Some(error);
            }
        }
        items.iterator("generator", fault)
    }

    fn map(&mut self, value: &Value, given: Given, items: &mut ItemsBuilder) -> Outcome<()> {
        let Given { mut positional, named, .. } = given;
        if positional.is_empty() && named.iter().any(|(name, _)| &**name == "attribute") {
            let [attribute, default] =
                Given { positional, named, ..Given::default() }.bind("map", ["attribute", "default"], 0)?;
            let path = self.path_unless_none(attribute)?;
            let default = default.filter(|default| !matches!(default, Value::None));
            let mut pull = Pull::new(value)?;
            while let Some(item) = pull.next(&self.heap)? {
                items.push(self.follow(item, &path, default.as_ref())?)?;
            }
            return Ok(());
        }
        if positional.is_empty() {
            return Fault::err("map requires a filter argument");
        }
        let name = positional.remove(0);
        let name = self.filter_name(&name, "filter")?;
        let given = Given { positional, named, ..Given::default() };
        let mut pull = Pull::new(value)?;
        while let Some(item) = pull.next(&self.heap)? {
            self.heap.step(given.positional.len() + given.named.len())?;
            let filtered = self.deeper(|renderer| renderer.filter(&name, item, given.clone()))?;
            items.push(filtered)?;
        }
        Ok(())
    }

    fn filter_name(&self, name: &Value, kind: &str) -> Outcome<String> {
        match name {
            Value::Text(name) if name.len() < 64 => Ok(name.to_string()),
            _ => Fault::err(format!("No {kind} of that name.")),
        }
    }

    fn select(&mut self, name: &str, value: &Value, given: Given, items: &mut ItemsBuilder) -> Outcome<()> {
        let Given { mut positional, named, .. } = given;
        let mut path = Vec::new();
        if name.ends_with("attr") {
            if positional.is_empty() {
                return Fault::err("Missing parameter for attribute name");
            }
            path = match positional.remove(0) {
                Value::None => Vec::new(),
                attribute => self.path(&attribute)?,
            };
        }
        let wanted = name.starts_with("select");
        let test = if positional.is_empty() { None } else { Some(positional.remove(0)) };
        let test = test.map(|test| self.filter_name(&test, "test")).transpose()?;
        let given = Given { positional, named, ..Given::default() };
        let mut pull = Pull::new(value)?;
        while let Some(item) = pull.next(&self.heap)? {
            self.heap.step(given.positional.len() + given.named.len())?;
            let judged = self.follow(item.clone(), &path, None)?;
            let holds = match &test {
                Some(test) => self.test(test, &judged, given.clone())?,
                None => judged.is_true(),
            };
            if holds == wanted {
                items.push(item)?;
            }
        }
        Ok(())
    }
}
