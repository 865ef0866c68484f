use super::*;

fn plan(strategy: Strategy, children: usize) -> Plan {
    let child = |i: usize| ChildPlan {
        id: format!("c{i}"),
        restart: Restart::Permanent,
        start_deadline: Duration::from_secs(5),
        shutdown: Duration::from_secs(3),
        backoff: Backoff {
            immediate: true,
            first: Duration::from_millis(20),
            factor: 5,
            max: Duration::from_secs(2),
        },
    };
    Plan { strategy, intensity: None, children: (0..children).map(child).collect() }
}

fn ready(plan: &Plan, state: &mut State, child: usize) -> Vec<Effect> {
    let generation = state.children[child].generation;
    step(plan, state, &Event::ChildReady { child, generation }, Duration::ZERO)
}

fn exit(plan: &Plan, state: &mut State, child: usize, now: Duration) -> Vec<Effect> {
    let generation = state.children[child].generation;
    let exit = Exit::Failed("x".into());
    step(plan, state, &Event::ChildExited { child, generation, exit }, now)
}

#[test]
fn each_waits_for_the_one_before_at_the_first_start() {
    let plan = plan(Strategy::OneForOne, 2);
    let mut state = State::new(&plan);
    let effects = step(&plan, &mut state, &Event::TreeStarted, Duration::ZERO);
    assert_eq!(effects, [Effect::Spawn { child: 0, generation: 1 }]);
    assert_eq!(ready(&plan, &mut state, 0), [Effect::Spawn { child: 1, generation: 1 }]);
}

#[test]
fn a_first_child_that_can_not_start_does_not_hold_back_the_others() {
    let plan = plan(Strategy::OneForOne, 2);
    let mut state = State::new(&plan);
    let _ = step(&plan, &mut state, &Event::TreeStarted, Duration::ZERO);
    let effects = exit(&plan, &mut state, 0, Duration::ZERO);
    assert!(effects.contains(&Effect::Spawn { child: 1, generation: 1 }), "{effects:?}");
}

#[test]
fn delays_grow_to_the_limit_and_start_over_after_a_good_time() {
    let plan = plan(Strategy::OneForOne, 1);
    let mut state = State::new(&plan);
    let _ = step(&plan, &mut state, &Event::TreeStarted, Duration::ZERO);
    let mut now = Duration::ZERO;
    let mut delays = Vec::new();
    for good in [false, false, false, false, false, false, true, false] {
        let generation = state.children[0].generation;
        let _ = step(&plan, &mut state, &Event::ChildReady { child: 0, generation }, now);
        now += if good { Duration::from_secs(3) } else { Duration::from_millis(1) };
        for effect in exit(&plan, &mut state, 0, now) {
            if let Effect::ArmTimer { after, .. } = effect {
                delays.push(after.as_millis());
            }
        }
        let fired = Event::TimerFired { timer: Timer::RestartDue, child: 0, generation };
        let effects = step(&plan, &mut state, &fired, now);
        assert_eq!(effects, [Effect::Spawn { child: 0, generation: generation + 1 }]);
    }
    assert_eq!(delays, [0, 20, 100, 500, 2000, 2000, 0, 20]);
}

#[test]
fn news_of_an_earlier_generation_change_nothing() {
    let plan = plan(Strategy::RestForOne, 2);
    let mut state = State::new(&plan);
    let _ = step(&plan, &mut state, &Event::TreeStarted, Duration::ZERO);
    let _ = exit(&plan, &mut state, 0, Duration::ZERO);
    let due = Event::TimerFired { timer: Timer::RestartDue, child: 0, generation: 1 };
    let _ = step(&plan, &mut state, &due, Duration::ZERO);
    let before = state.clone();
    for event in [
        Event::ChildReady { child: 0, generation: 1 },
        Event::ChildExited { child: 0, generation: 1, exit: Exit::Killed },
        Event::HeartbeatMissed { child: 0, generation: 1 },
        Event::TimerFired { timer: Timer::AbortDeadline, child: 0, generation: 1 },
        due,
        Event::ChildReady { child: 9, generation: 1 },
        Event::RestartRequested { child: 9 },
    ] {
        assert_eq!(step(&plan, &mut state, &event, Duration::ZERO), []);
        assert_eq!(state, before, "{event:?}");
    }
}

#[test]
fn a_child_that_survives_its_abort_ends_the_supervisor() {
    let plan = plan(Strategy::OneForOne, 2);
    let mut state = State::new(&plan);
    let _ = step(&plan, &mut state, &Event::TreeStarted, Duration::ZERO);
    let _ = ready(&plan, &mut state, 0);
    let _ = ready(&plan, &mut state, 1);
    let missed = Event::HeartbeatMissed { child: 0, generation: 1 };
    let effects = step(&plan, &mut state, &missed, Duration::ZERO);
    assert_eq!(effects[0], Effect::Abort { child: 0, generation: 1 });
    let late = Event::TimerFired { timer: Timer::AbortDeadline, child: 0, generation: 1 };
    let effects = step(&plan, &mut state, &late, Duration::ZERO);
    assert_eq!(effects[0], Effect::Escalate(Cause::Unkillable { child: "c0".into() }));
    let effects = exit(&plan, &mut state, 1, Duration::ZERO);
    assert_eq!(effects, [Effect::Finished]);
    assert_eq!(state.children[0].phase, Phase::Lost);
}
