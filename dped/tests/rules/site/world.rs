//! How the world goes on: time, what probes see, what actions do, what the infrastructure says; and what an engine may never do.

use dped::Carried;

use super::*;

impl Site {
    /// To the next thing that happens, not beyond `end`. False: nothing happens before it.
    pub(crate) fn step(&mut self, end: Timestamp) -> bool {
        let timeout = self.engine.poll_timeout().map(|(at, _)| at.max(self.now));
        let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = [timeout, queued].into_iter().flatten().min().filter(|at| *at <= end) else {
            return false;
        };
        self.now = next;
        self.age_world();
        self.note_truth();
        if queued == Some(next) {
            if let Some((_, happening)) = self.queue.pop_first() {
                self.happen(happening);
            }
        } else {
            self.engine.handle_timeout(next);
            let after = self.engine.poll_timeout();
            assert!(
                after.is_none_or(|(at, _)| at > next),
                "woken for nothing at {next}: {after:?}\n{}",
                self.transcript()
            );
        }
        self.carry_out();
        true
    }

    /// What a process knew and had in flight is gone; what it had begun goes on in the world.
    pub(super) fn end_process(&mut self, down: Duration) {
        self.queue.retain(|_, it| matches!(it, Happening::Ended { .. } | Happening::Outcome { .. }));
        // Nobody waits for their ends any more; that they are looked at first is seen by what was seen since.
        let open = std::mem::take(&mut self.open_acts);
        self.orphans.extend(open.into_values().map(|(action, _)| action));
        // Whether these were configured nobody can know any more.
        let begun = self.acts.iter().filter(|(_, action)| self.orphans.contains(&action.action));
        let services = begun.filter_map(|(_, action)| match action.act {
            Act::Reconfigure(service) | Act::StartService(service) => Some(service),
            _ => None,
        });
        let services: Vec<_> = services
            .filter(|it| usize::from(it.0) < self.guests.len())
            .map(|it| self.service_name(it))
            .collect();
        self.set_up.retain(|name, _| !services.contains(name));
        self.flights.clear();
        self.last_seen.clear();
        self.pending.clear();
        let (guard, ended) = (self.guard.snapshot(self.now), self.now);
        let end = self.now.after(down);
        while let Some(((at, _), _)) = self.queue.first_key_value().filter(|((at, _), _)| *at <= end) {
            self.now = *at;
            self.age_world();
            self.note_truth();
            match self.queue.pop_first() {
                Some((_, Happening::Ended { action }))
                    if !self.is_history(&Happening::Ended { action: action.clone() }) =>
                {
                    self.end_act(&action);
                }
                // Nobody is there to hear of it.
                _ => {}
            }
        }
        self.now = end;
        self.age_world();
        self.note_truth();
        self.guard = Guard::restore(GuardSettings::default(), &guard, end.since(ended), end);
        let written = self.written.iter().flat_map(|(snapshot, _)| &snapshot.assemblies);
        let carried_on: Vec<ActionId> = written
            .flat_map(|it| {
                let recovery = it.recovery.as_ref().map(|recovery| recovery.action);
                let power = it.power.as_ref().and_then(|power| power.flight.as_ref());
                let step = it.step.as_ref().map(|step| step.action);
                recovery.into_iter().chain(step).chain(power.map(|it| it.action))
            })
            .collect();
        self.leases.retain(|action| carried_on.contains(action));
        self.guard.retain_leases(
            |_, action| {
                if carried_on.contains(&action) { Carried::On } else { Carried::Not }
            },
            self.now,
        );
    }

    /// Machines boot and units die by themselves.
    fn age_world(&mut self) {
        let now = self.now;
        for (index, host) in self.hosts.iter_mut().enumerate() {
            if let Machine::Booting { until } = host.machine
                && until <= now
            {
                host.machine = Machine::Up;
                let services = self.engine.definition().services_of(AssemblyIndex(index as u16));
                for service in services {
                    let guest = &mut self.guests[usize::from(service.0)];
                    if guest.enabled {
                        guest.start(now);
                    }
                }
            }
        }
        for guest in &mut self.guests {
            if guest.dies_at.is_some_and(|at| at <= now) {
                guest.dies_at = None;
                guest.unit = Unit::Failed;
            }
        }
    }

    /// Keeps the truth: what no record of the engine can know.
    fn note_truth(&mut self) {
        let definition = Arc::clone(self.engine.definition());
        for index in definition.assembly_indices() {
            let answers = self.answers(index);
            let mut all = answers;
            for service in definition.services_of(index) {
                let well = answers && self.guests[usize::from(service.0)].unit == Unit::Running;
                all &= well;
                self.note_well(Target::Service(service), well);
                let outside = self.seen_outside(Target::Service(service), index);
                if matches!(outside, Some(Observation::Expected(_))) {
                    self.speaks.entry(service).or_insert(self.now);
                } else {
                    self.speaks.remove(&service);
                }
            }
            self.note_well(Target::Channel(index), all);
        }
    }

    fn note_well(&mut self, target: Target, well: bool) {
        if well {
            self.well.entry(target).or_insert(self.now);
        } else {
            self.well.remove(&target);
        }
    }

    /// Whether what happens is about something that a changed definition does not have any more.
    fn is_history(&self, happening: &Happening) -> bool {
        let (hosts, guests) = (self.hosts.len(), self.guests.len());
        let gone = |index: AssemblyIndex| usize::from(index.0) >= hosts;
        match happening {
            Happening::Answer { target: Target::Service(index), .. }
            | Happening::Silence { target: Target::Service(index), .. } => usize::from(index.0) >= guests,
            Happening::Answer { target: Target::Channel(index), .. }
            | Happening::Silence { target: Target::Channel(index), .. }
            | Happening::AskedInstance(index) => gone(*index),
            Happening::Ended { action } => match action.act {
                Act::RestartService(index)
                | Act::StartService(index)
                | Act::StopService(index)
                | Act::Reconfigure(index) => gone(action.assembly) || usize::from(index.0) >= guests,
                Act::Fence(_) | Act::Machine(_) | Act::Power(_) => gone(action.assembly),
            },
            Happening::Fenced { .. } | Happening::Outcome { .. } | Happening::Input(_) => false,
        }
    }

    fn happen(&mut self, happening: Happening) {
        if self.is_history(&happening) {
            return;
        }
        match happening {
            Happening::Answer { probe, target, began } => {
                let observation = self.observe(target);
                if observation == Observation::NotObserved && matches!(target, Target::Channel(_)) {
                    // It went away while the probe was under way.
                    let at = began.after(seconds(5.0)).max(self.now);
                    self.push(at, Happening::Silence { probe, target });
                    return;
                }
                self.tell_probe(probe, target, observation);
            }
            Happening::Silence { probe, target } => {
                let observation = match target {
                    Target::Channel(index) => {
                        let failure =
                            self.hosts[usize::from(index.0)].way.unwrap_or(ChannelFailure::TimedOut);
                        Observation::Channel(failure, self.details.clone())
                    }
                    Target::Service(service) => {
                        let assembly = self.engine.definition().service(service).assembly;
                        if let Some(seen) = self.seen_outside(target, assembly) {
                            seen
                        } else if self.answers(assembly) {
                            Observation::DeadlinePassed
                        } else {
                            Observation::NotObserved
                        }
                    }
                };
                self.tell_probe(probe, target, observation);
            }
            Happening::Ended { action } => self.end_act(&action),
            Happening::Fenced { action, outcome } => {
                self.open_acts.retain(|_, (open, _)| *open != action);
                self.engine.handle_input(Input::Fenced { action, outcome }, self.now);
            }
            Happening::Outcome { action, .. } if self.orphans.contains(&action) && action.0 % 3 != 0 => {}
            Happening::Outcome { action, outcome } => {
                self.open_acts.retain(|_, (open, _)| *open != action);
                self.engine.handle_input(Input::Acted { action, outcome }, self.now);
            }
            Happening::AskedInstance(_) if self.deaf => {}
            Happening::AskedInstance(index) => self.engine.handle_input(self.instance(index), self.now),
            Happening::Input(input) => self.engine.handle_input(input, self.now),
        }
    }

    fn tell_probe(&mut self, probe: ProbeId, target: Target, observation: Observation) {
        if self.flights.get(&target) == Some(&probe) {
            self.flights.remove(&target);
        }
        let void = self.lagging;
        // What was not tried, or not carried, says nothing and takes nothing back.
        let nothing = matches!(
            observation,
            Observation::NotObserved | Observation::Channel(ChannelFailure::NotTried, _)
        );
        if !void && !nothing {
            let seen = match &observation {
                Observation::Alive
                | Observation::Connected
                | Observation::Expected(_)
                | Observation::Warned(_)
                | Observation::Exited(0, _) => Seen::Well,
                Observation::Unit(unit) if &*unit.active == "active" => Seen::Well,
                Observation::Unit(unit)
                    if &*unit.load == "loaded" && matches!(&*unit.active, "inactive" | "failed") =>
                {
                    Seen::Bad
                }
                Observation::Channel(failure, _) if *failure != ChannelFailure::NotTried => Seen::Bad,
                Observation::NotConnected(_)
                | Observation::Unexpected(_)
                | Observation::Silent(_)
                | Observation::Exited(..)
                | Observation::DeadlinePassed => Seen::Bad,
                _ => Seen::Unclear,
            };
            let activating = matches!(&observation, Observation::Unit(unit) if &*unit.active == "activating");
            // Only another word of systemd ends it; a probe without an answer says nothing.
            if matches!(&observation, Observation::Unit(_)) && !activating {
                self.pending.remove(&target);
            }
            let since = *self.pending.entry(target).or_insert(self.now);
            let grace = match target {
                Target::Service(service) => self.engine.definition().service(service).probe.startup_grace,
                Target::Channel(_) => Duration::MAX,
            };
            // A unit that is still activating after its grace has failed.
            let late = activating && self.now.since(since) + seconds(1.0) >= grace;
            let seen = if late { Seen::Bad } else { seen };
            self.last_seen.insert(target, (self.now, seen));
        }
        if let (Target::Channel(index), Observation::Alive) = (target, &observation) {
            let name = self.engine.definition().name.clone();
            self.guard.answered("default", &name, index, self.now);
        }
        self.engine.handle_input(Input::Probed { probe, observation, void }, self.now);
    }

    fn answers(&self, index: AssemblyIndex) -> bool {
        let host = &self.hosts[usize::from(index.0)];
        host.machine == Machine::Up && host.way.is_none()
    }

    fn observe(&self, target: Target) -> Observation {
        let assembly = match target {
            Target::Channel(index) => index,
            Target::Service(service) => self.engine.definition().service(service).assembly,
        };
        if let Some(seen) = self.seen_outside(target, assembly) {
            return seen;
        }
        if !self.answers(assembly) {
            return Observation::NotObserved;
        }
        let Target::Service(service) = target else { return Observation::Alive };
        let unit = |load: &str, active: &str, sub: &str| {
            Observation::Unit(UnitState { load: load.into(), active: active.into(), sub: sub.into() })
        };
        let check = &self.engine.definition().service(service).check;
        if let Some(asked) = check.from_guest() {
            return asked::of(self.guests[usize::from(service.0)].unit, asked.speaks_of_programs());
        }
        let systemd = check.kind() == "systemd";
        match (self.guests[usize::from(service.0)].unit, systemd) {
            (Unit::Running, true) => unit("loaded", "active", "running"),
            (Unit::Stopped, true) => unit("loaded", "inactive", "dead"),
            (Unit::Failed, true) => unit("loaded", "failed", "failed"),
            (Unit::Masked, _) => unit("masked", "inactive", "dead"),
            (Unit::NotFound, _) => unit("not-found", "inactive", "dead"),
            (Unit::Activating, _) => unit("loaded", "activating", "auto-restart"),
            (Unit::Odd, _) => unit("loaded", "pondering", ""),
            (Unit::Warns, _) => Observation::Exited(1, "look at it".into()),
            (Unit::Hangs, _) => Observation::DeadlinePassed,
            (Unit::Running, false) => Observation::Exited(0, "".into()),
            (_, false) => Observation::Exited(1, "".into()),
        }
    }

    /// What the controller sees itself of a service that it probes so.
    fn seen_outside(&self, target: Target, assembly: AssemblyIndex) -> Option<Observation> {
        let Target::Service(service) = target else { return None };
        let definition = self.engine.definition();
        let program = definition.service(service).check.direct()?.speaks_of_programs();
        let host = &self.hosts[usize::from(assembly.0)];
        let silent = Observation::Silent("no answer by the deadline".into());
        Some(match host.machine {
            _ if host.dark => silent,
            Machine::Frozen if !program => Observation::Connected,
            Machine::Up => asked::of(self.guests[usize::from(service.0)].unit, program),
            _ => silent,
        })
    }

    fn push(&mut self, at: Timestamp, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    /// Something that the world will tell the engine later.
    pub(crate) fn later(&mut self, wait: Duration, input: Input) {
        self.push(self.now.after(wait), Happening::Input(input));
    }

    /// Carries out what the engine asks for.
    pub(super) fn carry_out(&mut self) {
        if self.engine.take_persist() {
            self.written = Some((self.engine.snapshot(self.now), self.now));
            self.writes += 1;
        }
        let mut rounds = 0;
        while let Some(output) = self.engine.poll_output() {
            rounds += 1;
            assert!(rounds < 10_000, "the engine never ends asking at {}\n{}", self.now, self.transcript());
            match output {
                Output::Probe { probe, target, timeout } => self.send_probe(probe, target, timeout),
                Output::AskInstance(index) => {
                    self.asked += 1;
                    self.push(self.now.after(self.latency), Happening::AskedInstance(index));
                }
                Output::AskSurroundings(index) => self.answer_surroundings(index),
                Output::AskAdmission(request) => self.answer_admission(&request),
                Output::Act(action) => {
                    let definition = self.engine.definition();
                    let (name, give_up) = (&definition.name, definition.timing.action_give_up);
                    self.guard.begins(name, action.action, give_up, self.now);
                    self.act(action);
                }
                Output::Release(action) => {
                    self.leases.remove(&action);
                    self.open_acts.retain(|_, (open, _)| *open != action);
                    let name = self.engine.definition().name.clone();
                    self.guard.release(&name, action, self.now);
                }
                Output::Reconnect(_) => self.reconnects += 1,
                Output::Report(event) => self.report(event),
                Output::Record(decision) => self.decisions.push(*decision),
                Output::Answer { order, answer } => {
                    let said = match answer {
                        Ok(said) => Ok(said.into_string()),
                        Err(said) => Err(said.into_string()),
                    };
                    self.answers.insert(order, said);
                }
                Output::Notify { incident, message } => {
                    self.line("notify", &message);
                    self.notices.push((self.now, incident, message.into()));
                }
            }
        }
    }

    fn send_probe(&mut self, probe: ProbeId, target: Target, timeout: Duration) {
        if let Some(open) = self.flights.insert(target, probe) {
            assert!(self.lost, "{target:?} is probed while probe {open} of it is in flight");
        }
        self.probes.push((self.now, target));
        let (at, silent) = match (self.observe(target), target) {
            (Observation::NotObserved, Target::Channel(index)) => {
                match self.hosts[usize::from(index.0)].way {
                    Some(ChannelFailure::TimedOut) | None => (self.now.after(timeout), true),
                    Some(_) => (self.now.after(self.latency), true),
                }
            }
            (
                Observation::NotObserved | Observation::DeadlinePassed | Observation::Silent(_),
                Target::Service(_),
            ) => (self.now.after(timeout), true),
            _ => (self.now.after(self.latency), false),
        };
        let began = self.now;
        if self.drops() {
            return;
        }
        self.push(
            at,
            if silent {
                Happening::Silence { probe, target }
            } else {
                Happening::Answer { probe, target, began }
            },
        );
    }

    /// What the infrastructure says once it has been asked.
    fn instance(&self, index: AssemblyIndex) -> Input {
        let host = &self.hosts[usize::from(index.0)];
        let truth = match host.machine {
            Machine::Up | Machine::Frozen | Machine::Booting { .. } => InstanceState::Active,
            Machine::Off => InstanceState::Off,
            Machine::Gone => InstanceState::Gone,
            Machine::Broken => InstanceState::Error,
        };
        Input::Instance {
            assembly: index,
            state: host.claims.unwrap_or(truth),
            address: host.address.clone(),
            ordered: host.ordered,
            owner: host.owner.clone(),
        }
    }

    fn answer_surroundings(&mut self, index: AssemblyIndex) {
        if self.deaf {
            return;
        }
        let name = self.engine.definition().name.clone();
        let peer = self.guard.path_answered("default", (&name, index), self.now);
        let (ago, by) = match (self.canary, peer) {
            (true, _) => (Some(seconds(1.0)), "canary".to_owned()),
            (false, Some((ago, (name, index)))) => {
                let peer = self.engine.definition().assemblies.get(usize::from(index.0));
                (Some(ago), peer.map_or(name.to_string(), |peer| format!("{name}/{}", peer.name)))
            }
            (false, None) => (None, String::new()),
        };
        let surroundings = Surroundings {
            self_trusted: self.self_trusted,
            held_domain: self.held.clone(),
            path_answered_ago: ago,
            path_answered_by: by.into(),
            capabilities: self.capabilities.clone(),
        };
        self.push(self.now, Happening::Input(Input::Surroundings { assembly: index, surroundings }));
    }

    fn answer_admission(&mut self, request: &dped::Request) {
        if self.deaf {
            return;
        }
        let definition = Arc::clone(self.engine.definition());
        let domains = self.engine.domains(request.assembly).into_owned();
        let place = Place { infrastructure: definition.infrastructure.clone(), domains: &domains };
        let (answer, gates) = match self.refuses {
            Some(refusal) => (Answer::Refused(refusal), Vec::new()),
            None => self.guard.ask(&definition.name, request, &place, self.now),
        };
        if answer == Answer::Admitted {
            self.leases.insert(request.action);
        }
        self.later(self.gate_takes, Input::Admission { action: request.action, answer, gates });
    }

    fn act(&mut self, action: Action) {
        self.check_act(&action);
        let written = self.written.iter().flat_map(|(snapshot, _)| &snapshot.assemblies);
        let mut numbers = written.flat_map(|it| {
            let recovery = it.recovery.as_ref().map(|recovery| recovery.action);
            recovery.into_iter().chain(it.step.as_ref().map(|step| step.action))
        });
        if !numbers.any(|number| number == action.action) {
            self.unwritten.push(action.action);
        }
        // Without an outcome it is over, for the engine, when it must count as unresolved.
        let over = self.now.after(action.timeout).after(dped::OUTCOME_LOST_AFTER);
        self.open_acts.insert(action.assembly, (action.action, over));
        if matches!(action.act, Act::Machine(Rung::Recreate | Rung::Relocate)) {
            if self.created.contains(&action.action) {
                let detail = "its creation was begun before".into();
                let outcome = ActionOutcome::Unresolved { detail };
                return self.push(self.now, Happening::Outcome { action: action.action, outcome });
            }
            self.created.push(action.action);
            self.orphans.remove(&action.action);
        }
        let word = match action.act {
            Act::RestartService(service) => format!("restart {}", self.service_name(service)),
            Act::StartService(service) => format!("start {}", self.service_name(service)),
            Act::StopService(service) => format!("stop {}", self.service_name(service)),
            Act::Reconfigure(service) => format!("reconfigure {}", self.service_name(service)),
            Act::Fence(rung) => {
                format!("fence for {rung} {}", self.engine.definition().assembly(action.assembly).name)
            }
            Act::Power(switch) => {
                format!("power {switch:?} {}", self.engine.definition().assembly(action.assembly).name)
            }
            Act::Machine(rung) => {
                format!("{rung} {}", self.engine.definition().assembly(action.assembly).name)
            }
        };
        self.line("do", &word);
        if let Act::StartService(service) | Act::Reconfigure(service) = action.act {
            let given = (self.service_name(service), self.engine.rendered(service));
            self.giving.insert(action.action, given);
        }
        self.acts.push((self.now, action.clone()));
        let takes = match action.act {
            Act::Fence(_) | Act::Machine(_) | Act::Power(_) => seconds(2.0),
            _ => seconds(0.2),
        };
        self.push(self.now.after(takes), Happening::Ended { action });
    }

    /// What must hold whatever the definition and the faults are.
    fn check_act(&self, action: &Action) {
        let story = || self.transcript();
        let index = action.assembly;
        if let Act::Machine(Rung::Recreate | Rung::Relocate) = action.act {
            // The second step of what was admitted: only that its first was done matters.
            let fenced =
                |(_, it): &(Timestamp, Action)| it.action == action.action && matches!(it.act, Act::Fence(_));
            assert!(self.acts.iter().any(fenced), "{action:?} was begun without a fence\n{}", story());
            return;
        }
        let definition = self.engine.definition();
        if let Act::RestartService(service) | Act::StartService(service) = action.act {
            let state = self.view().services[usize::from(service.0)].state;
            let seen = self.last_seen.get(&Target::Service(service));
            assert!(definition.service(service).restart.is_some(), "{action:?} on a {state}, seen {seen:?}");
        }
        assert!(self.leases.contains(&action.action), "{action:?} was begun without a lease\n{}", story());
        let other = self.open_acts.get(&index).filter(|(_, over)| self.now < *over);
        assert_eq!(other, None, "{action:?} is begun while another is in flight\n{}", story());
        assert_eq!(self.engine.definition().mode, Mode::Act, "{action:?} in observe mode\n{}", story());
        // A step of a recovery that was admitted before is not stranded half way.
        let part = action.part_of.is_some_and(|whole| self.leases.contains(&whole));
        assert_eq!(part, action.part_of.is_some(), "{action:?} is a step of nothing\n{}", story());
        assert!(part || !self.paused && !self.fleet_paused, "{action:?} while paused\n{}", story());
        let maintained = self.maintained.contains(&None) || self.maintained.contains(&Some(index));
        assert!(part || !maintained, "{action:?} in maintenance\n{}", story());
        let stop = matches!(action.act, Act::StopService(_)) && !part;
        if let Act::Power(switch) = action.act {
            return self.check_power(index, switch);
        }
        assert_eq!(stop, !self.desired.runs(), "{action:?} against what was ordered\n{}", story());
        let target = match action.act {
            Act::RestartService(service) | Act::StartService(service) => Some(Target::Service(service)),
            Act::Fence(_) | Act::Machine(_) => Some(Target::Channel(index)),
            Act::StopService(_) | Act::Reconfigure(_) | Act::Power(_) => None,
        };
        let mine = |it: &&Decision| it.action == action.action && it.answer == Answer::Admitted;
        let decision = self.decisions.iter().rfind(mine);
        if decision.is_some_and(|it| it.evidence.iter().any(|line| &*line.name == "ordered")) {
            // A person's word stands for what was seen.
            return;
        }
        let well = target.and_then(|target| self.well.get(&target)).map(|since| self.now.since(*since));
        let patience = definition.interval(index) * 2 + seconds(30.0);
        assert!(
            well.is_none_or(|well| well < patience),
            "{action:?} on what has been well for {well:?}\n{}",
            story()
        );
        let newest = |target: Target| self.last_seen.get(&target).map(|(_, seen)| *seen);
        let bad = |target| newest(target) == Some(Seen::Bad);
        match action.act {
            Act::RestartService(service) | Act::StartService(service) => {
                assert!(
                    bad(Target::Service(service)) || self.lossy(),
                    "{action:?} on what was not seen failing\n{}",
                    story()
                );
            }
            Act::Fence(_) | Act::Machine(_) => {
                let definition = self.engine.definition();
                let any = bad(Target::Channel(index))
                    || definition.services_of(index).any(|service| bad(Target::Service(service)));
                assert!(any, "{action:?} on what was not seen failing\n{}", story());
                // The infrastructure's own word outranks a witness (rows 6 to 8); silence of the channel does not (row 9).
                let said = self.hosts[usize::from(index.0)].claims.is_some() || self.lossy() || self.lagging;
                let speaks = definition
                    .services_of(index)
                    .filter(|it| definition.is_witness(*it))
                    .filter_map(|it| self.speaks.get(&it))
                    .any(|since| self.now.since(*since) > patience);
                assert!(
                    said || !speaks || !bad(Target::Channel(index)),
                    "{action:?} while a witness speaks\n{}",
                    story()
                );
            }
            Act::StopService(_) | Act::Power(_) => {}
            Act::Reconfigure(service) => {
                let known = self.set_up.get(&self.service_name(service)).cloned().flatten();
                let wanted = self.engine.rendered(service);
                assert!(wanted.is_some(), "{action:?} with what is not known\n{}", story());
                assert!(
                    known.is_none()
                        || known != wanted
                        || self.uncertain.contains(&self.service_name(service)),
                    "{action:?} with what it has already\n{}",
                    story()
                );
            }
        }
    }

    fn end_act(&mut self, action: &Action) {
        let fate = if self.outcomes.is_empty() { None } else { Some(self.outcomes.remove(0)) };
        let done = ActionOutcome::Done { detail: "done".into() };
        if let Act::StartService(service) | Act::Reconfigure(service) = action.act {
            let name = self.service_name(service);
            match fate {
                None => drop(self.uncertain.remove(&name)),
                Some(_) => drop(self.uncertain.insert(name)),
            }
        }
        let effective = !matches!(fate, Some(Outcome::Fails | Outcome::NotBegun));
        let worked = effective && self.take_effect(action);
        let outcome =
            if worked { done.clone() } else { ActionOutcome::Failed { detail: "exit status 1".into() } };
        let tell = |site: &mut Self, wait: Duration, outcome: ActionOutcome| {
            let (at, action, fence) =
                (site.now.after(wait), action.action, matches!(action.act, Act::Fence(_)));
            let fenced = Happening::Fenced { action, outcome: outcome.clone() };
            site.push(at, if fence { fenced } else { Happening::Outcome { action, outcome } });
        };
        match fate {
            None => tell(self, Duration::ZERO, outcome),
            Some(Outcome::Fails) => tell(
                self,
                Duration::ZERO,
                ActionOutcome::Failed { detail: "refused by the infrastructure".into() },
            ),
            Some(Outcome::NotBegun) => tell(
                self,
                Duration::ZERO,
                ActionOutcome::NotBegun {
                    why: Refusal::Journal,
                    detail: "the journal cannot be written".into(),
                },
            ),
            Some(Outcome::Unresolved) => {
                tell(self, action.timeout, ActionOutcome::Unresolved { detail: "no answer".into() });
            }
            Some(Outcome::Late(wait)) => tell(self, wait, outcome),
            Some(Outcome::Twice) => {
                tell(self, Duration::ZERO, outcome.clone());
                tell(self, seconds(1.0), outcome);
            }
            Some(Outcome::Lost) => {}
        }
    }

    fn take_effect(&mut self, action: &Action) -> bool {
        let now = self.now;
        let index = action.assembly;
        match action.act {
            Act::RestartService(service) | Act::StartService(service) | Act::Reconfigure(service) => {
                let answers = self.answers(index);
                if let Some((name, given)) = self.giving.remove(&action.action).filter(|_| answers) {
                    self.set_up.insert(name, given);
                }
                let guest = &mut self.guests[usize::from(service.0)];
                let started = answers && guest.start(now);
                let given = answers && matches!(action.act, Act::Reconfigure(_));
                if answers && !started && !given {
                    self.uncertain.insert(self.service_name(service));
                }
                started || given
            }
            Act::StopService(service) => {
                let guest = &mut self.guests[usize::from(service.0)];
                (guest.unit, guest.dies_at) = (Unit::Stopped, None);
                true
            }
            Act::Power(switch) => self.turn(index, switch),
            Act::Fence(_) => {
                let host = &mut self.hosts[usize::from(index.0)];
                if host.machine != Machine::Gone {
                    host.machine = Machine::Off;
                }
                true
            }
            Act::Machine(rung) => {
                let host = &mut self.hosts[usize::from(index.0)];
                let until = now.after(host.boot);
                let possible = match (rung, host.machine) {
                    (Rung::Start | Rung::RebootHard | Rung::RestartDeployable, Machine::Off) => true,
                    (Rung::RebootSoft, Machine::Frozen) => false,
                    (Rung::Rebuild, machine) => machine != Machine::Gone,
                    (Rung::Recreate | Rung::Relocate, _) => true,
                    (_, machine) => !matches!(machine, Machine::Gone | Machine::Off),
                };
                if possible {
                    host.machine = Machine::Booting { until };
                    if matches!(rung, Rung::Rebuild | Rung::Recreate | Rung::Relocate) {
                        let anew = self.engine.definition().services_of(index);
                        let anew: Vec<_> = anew.map(|service| self.service_name(service)).collect();
                        self.set_up.retain(|name, _| !anew.contains(name));
                    }
                    let host = &mut self.hosts[usize::from(index.0)];
                    if let Some(address) =
                        host.moves_to.take().filter(|_| matches!(rung, Rung::Recreate | Rung::Relocate))
                    {
                        host.address = Some(address);
                        self.push(now, Happening::AskedInstance(index));
                    }
                    for service in self.engine.definition().services_of(index) {
                        let guest = &mut self.guests[usize::from(service.0)];
                        if guest.unit != Unit::Masked {
                            (guest.unit, guest.dies_at) = (Unit::Stopped, None);
                        }
                    }
                }
                possible
            }
        }
    }

    // ---- randomly bad shells, for seeds

    fn lossy(&self) -> bool {
        self.lossy.is_some()
    }

    fn drops(&mut self) -> bool {
        match &mut self.lossy {
            Some(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                let lost = *state % 97 == 0;
                self.lost |= lost;
                lost
            }
            None => false,
        }
    }

    // ---- the transcript

    pub(crate) fn service_name(&self, service: ServiceIndex) -> String {
        let definition = self.engine.definition();
        let part = definition.service(service);
        format!("{}/{}", definition.assembly(part.assembly).name, part.name)
    }

    pub(super) fn line(&mut self, word: &str, text: &str) {
        let at = self.now.since(Timestamp::from_boot(Duration::from_secs(1000)));
        self.lines.push(format!("{:>9.2}  {word:<18} {text}", at.as_secs_f64()));
    }

    fn report(&mut self, event: Event) {
        let mut subject = self.engine.definition().name.to_string();
        for part in [&event.assembly, &event.service].into_iter().flatten() {
            subject.push('/');
            subject.push_str(part.as_str());
        }
        let mut text = subject;
        match (event.from, event.to) {
            (Some(from), Some(to)) => text.push_str(&format!(": {from} -> {to}")),
            (_, Some(to)) => text.push_str(&format!(": {to}")),
            _ => {}
        }
        if let Some(rung) = event.rung {
            text.push_str(&format!(" [{rung}]"));
        }
        if let Some(incident) = event.incident {
            text.push_str(&format!(" #{incident}"));
        }
        if !event.reason.is_empty() {
            text.push_str(&format!(" ({})", event.reason));
        }
        self.line(event.kind.as_str(), &text);
        self.events.push(event);
    }
}
