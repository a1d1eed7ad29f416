//! The tasks of an agent in the order in which the runner takes them: each after those it depends on, and among those
//! that are free, the more urgent first, then as they stand in the file.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use toka_core::AgentProgram;
use toka_core::rpc::{RetryRule, TaskList, TaskSpec};
use toka_workstream::{Retry, Task};

/// The answer to `tasks/get`. A task in a cycle, which the files' validation refuses, would be left out.
pub fn task_list(tasks: &[Task], program: Option<AgentProgram>) -> TaskList {
    let mut waiting: Vec<usize> = tasks.iter().map(|task| task.depends_on.len()).collect();
    let mut free: BinaryHeap<_> =
        (0..tasks.len()).filter(|at| waiting[*at] == 0).map(|at| Reverse((tasks[at].priority, at))).collect();
    let mut list = Vec::with_capacity(tasks.len());
    while let Some(Reverse((_, at))) = free.pop() {
        list.push(spec(at, &tasks[at]));
        for (later, task) in tasks.iter().enumerate() {
            let edges = task.depends_on.iter().filter(|on| **on == at).count();
            if edges > 0 {
                waiting[later] -= edges;
                if waiting[later] == 0 {
                    free.push(Reverse((task.priority, later)));
                }
            }
        }
    }
    let by_model = program.is_none() && list.iter().any(|task| task.run.is_none());
    TaskList { tasks: list, program, by_model }
}

fn spec(index: usize, task: &Task) -> TaskSpec {
    TaskSpec {
        index,
        description: task.description.clone(),
        run: task.run.clone(),
        talk: task.talk,
        timeout_ms: task.timeout.map(millis),
        retry: retry(&task.retry),
        depends_on: task.depends_on.clone(),
    }
}

fn retry(retry: &Retry) -> RetryRule {
    RetryRule {
        max_attempts: retry.max_attempts,
        initial_ms: millis(retry.initial),
        max_ms: millis(retry.max),
        multiplier: retry.multiplier,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use toka_core::{Origin, Priority};

    use super::*;

    fn task(priority: Priority, depends_on: &[usize]) -> Task {
        Task {
            description: String::new(),
            priority,
            group: None,
            run: Some("true".into()),
            talk: false,
            timeout: None,
            retry: Retry::ONCE,
            depends_on: depends_on.to_vec(),
            estimated_duration: None,
            tools_required: Vec::new(),
            origin: Origin::default_of("test"),
        }
    }

    #[test]
    fn dependencies_first_then_priority_then_the_file() {
        let tasks = [
            task(Priority::Low, &[]),
            task(Priority::High, &[3]),
            task(Priority::High, &[]),
            task(Priority::Low, &[]),
            task(Priority::Critical, &[1, 1]),
        ];
        let order: Vec<usize> = task_list(&tasks, None).tasks.iter().map(|task| task.index).collect();
        assert_eq!(order, [2, 0, 3, 1, 4]);
    }
}
