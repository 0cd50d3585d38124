//! Names in a script: `shop/web/nginx`, `shop/web`, `domain az1`, with `*` for any part of a name. They are looked up in the definitions,
//! so that a mistyped one is found before anything runs.

use std::sync::Arc;

use cpe_proto::definition::Deployable;
use cpe_proto::id::Name;

use super::line::{Line, Wrong, near, shown};
use crate::world::Place;

/// What a script can name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'d> {
    pub(super) definitions: &'d [Arc<Deployable>],
}

impl Names<'_> {
    /// One or more services.
    pub(super) fn services(&self, line: &mut Line<'_>) -> Result<Vec<Place>, Wrong> {
        self.places(line, "a service, as `shop/web/nginx`", 3)
    }

    /// One or more machines.
    pub(super) fn machines(&self, line: &mut Line<'_>) -> Result<Vec<Place>, Wrong> {
        self.places(line, "a machine, as `shop/web`", 2)
    }

    /// Services or machines: what the name says.
    pub(super) fn parts(&self, line: &mut Line<'_>) -> Result<Vec<Place>, Wrong> {
        let parts = line.peek().map_or(2, |word| word.split('/').count());
        self.places(line, "a machine or a service, as `shop/web` or `shop/web/nginx`", parts.clamp(2, 3))
    }

    /// Exactly one machine.
    pub(super) fn machine(&self, line: &mut Line<'_>) -> Result<Place, Wrong> {
        let at = line.at();
        let mut found = self.machines(line)?;
        match (found.pop(), found.is_empty()) {
            (Some(place), true) => Ok(place),
            _ => Err((at, "several machines, expected one".to_owned())),
        }
    }

    /// A failure domain of some machine.
    pub(super) fn domain(&self, line: &mut Line<'_>) -> Result<Name, Wrong> {
        let assemblies = self.definitions.iter().flat_map(|it| &it.assemblies);
        let known = assemblies.flat_map(|it| it.failure_domains.iter());
        one(line, "a failure domain", known)
    }

    /// An infrastructure that a definition names.
    pub(super) fn infrastructure(&self, line: &mut Line<'_>) -> Result<Name, Wrong> {
        one(line, "an infrastructure", self.definitions.iter().filter_map(|it| it.infrastructure.as_ref()))
    }

    /// A deployable.
    pub(super) fn deployable(&self, line: &mut Line<'_>) -> Result<Name, Wrong> {
        one(line, "a deployable", self.definitions.iter().map(|it| &it.name))
    }

    /// A deployable, or one of its assemblies.
    pub(super) fn deployable_or_assembly(&self, line: &mut Line<'_>) -> Result<(Name, Option<Name>), Wrong> {
        if line.peek().is_some_and(|word| word.contains('/')) {
            let place = self.machine(line)?;
            return Ok((place.deployable, Some(place.assembly)));
        }
        Ok((self.deployable(line)?, None))
    }

    fn places(&self, line: &mut Line<'_>, expected: &str, parts: usize) -> Result<Vec<Place>, Wrong> {
        let at = line.at();
        let word = line.word(expected)?;
        if word.split('/').count() != parts {
            return Err((at, format!("`{}`, expected {expected}", shown(word))));
        }
        let all: Vec<Place> = self.all(parts);
        let found: Vec<Place> =
            all.iter().filter(|place| matches(word, &place.to_string())).cloned().collect();
        if found.is_empty() {
            let names: Vec<String> = all.iter().map(ToString::to_string).collect();
            let near = near(word, names.iter().map(String::as_str));
            return Err((at, format!("there is no `{}`, expected {expected}{near}", shown(word))));
        }
        Ok(found)
    }

    /// All machines, or all services, in the order of the definitions.
    fn all(&self, parts: usize) -> Vec<Place> {
        let mut all = Vec::new();
        for definition in self.definitions {
            for (index, assembly) in definition.assembly_indices().zip(&definition.assemblies) {
                let place = |service: Option<Name>| Place {
                    deployable: definition.name.clone(),
                    assembly: assembly.name.clone(),
                    service,
                };
                if parts == 2 {
                    all.push(place(None));
                } else {
                    let services = definition.services_of(index);
                    all.extend(services.map(|it| place(Some(definition.service(it).name.clone()))));
                }
            }
        }
        all
    }
}

fn one<'n>(
    line: &mut Line<'_>,
    what: &str,
    known: impl Iterator<Item = &'n Name> + Clone,
) -> Result<Name, Wrong> {
    let at = line.at();
    let word = line.word(what)?;
    let found = known.clone().find(|name| name.as_str() == word).cloned();
    found.ok_or_else(|| {
        let near = near(word, known.map(Name::as_str));
        (at, format!("there is no `{}`, expected {what} of the definitions{near}", shown(word)))
    })
}

/// Part by part; `*` stands for any part of one.
fn matches(pattern: &str, name: &str) -> bool {
    let (mut patterns, mut names) = (pattern.split('/'), name.split('/'));
    loop {
        match (patterns.next(), names.next()) {
            (None, None) => return true,
            (Some(pattern), Some(name)) if matches_part(pattern, name) => {}
            _ => return false,
        }
    }
}

fn matches_part(pattern: &str, name: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(before) else { return false };
    let mut ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    ends.any(|at| rest.get(at..).is_some_and(|rest| matches_part(after, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_part_of_one_name() {
        for (pattern, name) in [
            ("shop/*/nginx", "shop/web-1/nginx"),
            ("az1-*/vm", "az1-3/vm"),
            ("*/*", "a/b"),
            ("a*b*c/d", "axxbyyc/d"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("*", "a/b"), ("shop/*", "shop/web/nginx"), ("az1*", "az2"), ("a*b", "a")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
