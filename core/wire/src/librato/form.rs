//! Form bodies of `POST /v1/metrics`: `gauges[0][name]=cpu&gauges[0][value]=75&source=a`.
//!
//! The keys of one item may stand anywhere in the body, so items are taken only at its end.

use std::borrow::Cow;
use std::collections::HashMap;

use stele_model::Limits;

use super::FORM_ITEMS_MAX;
use super::gather::Gather;
use super::item::{Item, List, Raw};
use crate::check::Quoted;
use crate::{Decoded, Error};

/// An item under construction.
#[derive(Debug)]
struct Group<'a> {
    list: List,
    key: String,
    item: Item<'a>,
    fault: Option<String>,
}

/// What a form holds, in the order in which it first appears.
#[derive(Debug, Default)]
struct Form<'a> {
    top: Item<'a>,
    /// Why the top level is not believed.
    fault: Option<String>,
    groups: Vec<Group<'a>>,
    /// (is a counter, key) to the group.
    known: HashMap<(bool, String), usize>,
}

/// Decodes a form. `gauges[<key>][<field>]`: the key is the name, or any text when there is a
/// field `name`. Text that is no form holds no item.
///
/// # Errors
/// [`Error::Nothing`] when it holds no item, [`Error::Items`] when it holds more than
/// [`FORM_ITEMS_MAX`], [`Error::SeriesBytes`] when their names are too large.
pub fn metrics(body: &[u8], now_us: i64, limits: &Limits) -> Result<Decoded, Error> {
    let mut gather = Gather::new(now_us, limits);
    let form = Form::read(body, &mut gather, FORM_ITEMS_MAX.min(limits.samples_max))?;
    let (time, source) = (form.top.time.as_ref(), form.top.source.as_ref());
    let mut defaults = gather.defaults(List::Gauges, time, source, form.top.tags.as_ref());
    if let Some(fault) = form.fault {
        defaults.ts_us = Err(fault.clone());
        defaults.tags = Err(fault);
    }
    for list in LISTS {
        let groups = form.groups.iter().filter(|group| group.list == list);
        for (index, group) in (0..).zip(groups) {
            let item = group.fault.clone().map_or(Ok(&group.item), Err);
            gather.take(list, index, Some(&group.key), item, &defaults)?;
        }
    }
    Ok(gather.finish())
}

const LISTS: [List; 2] = [List::Gauges, List::Counters];

impl<'a> Form<'a> {
    /// Refuses what names a list and no field of it.
    fn read(body: &'a [u8], gather: &mut Gather, items_max: u64) -> Result<Self, Error> {
        let mut form = Self::default();
        let mut malformed: u64 = 0;
        for (name, value) in form_urlencoded::parse(body) {
            if let Some((list, key, field)) = path(&name) {
                let group = form.group(list, key, items_max)?;
                if let Some(slot) = group.item.slot(field) {
                    set(slot, field, value, &mut group.fault);
                }
            } else if LISTS.iter().any(|list| name.starts_with(list.as_str())) {
                let reason = format!("{} is not gauges[key][field]", Quoted(name.as_bytes()));
                gather.refuse(format_args!("form[{malformed}]"), &reason);
                malformed += 1;
            } else if let Some(slot) = form.top.slot(&name) {
                set(slot, &name, value, &mut form.fault);
            }
        }
        if form.groups.is_empty() && malformed == 0 {
            return Err(Error::Nothing {
                expected: "gauges or counters",
            });
        }
        Ok(form)
    }

    fn group(&mut self, list: List, key: &str, limit: u64) -> Result<&mut Group<'a>, Error> {
        let id = (list == List::Counters, key.to_owned());
        let next = self.groups.len();
        let at = match self.known.get(&id) {
            Some(at) => *at,
            None if next as u64 >= limit => return Err(Error::Items { limit }),
            None => {
                self.known.insert(id, next);
                self.groups.push(Group {
                    list,
                    key: key.to_owned(),
                    item: Item::default(),
                    fault: None,
                });
                next
            }
        };
        Ok(&mut self.groups[at])
    }
}

/// List, key and field of `gauges[key][field]`; what follows the field is not looked at.
fn path(name: &str) -> Option<(List, &str, &str)> {
    let (list, rest) = LISTS.iter().find_map(|list| {
        let rest = name.strip_prefix(list.as_str())?.strip_prefix('[')?;
        Some((*list, rest))
    })?;
    let (key, rest) = rest.split_once(']')?;
    let (field, _) = rest.strip_prefix('[')?.split_once(']')?;
    Some((list, key, field))
}

fn set<'a>(
    slot: &mut Option<Raw<'a>>,
    field: &str,
    value: Cow<'a, str>,
    fault: &mut Option<String>,
) {
    // An empty field says nothing, as `null` in JSON.
    if value.is_empty() {
        return;
    }
    // Tags are refused whatever they are, so they may stand more than once.
    if slot.is_some() && field != "tags" {
        *fault = Some(format!("{field} stands twice"));
    }
    *slot = Some(Raw::Text(value));
}
