//! `palmtop plan`: shows the memory of a session without creating one.

use palmtop::Plan;
use serde::Serialize;

use crate::args::PlanArgs;
use crate::output::Stdout;
use crate::{Outcome, models};

pub fn run(args: &PlanArgs) -> anyhow::Result<Outcome> {
    let model = models::open(&args.model)?;
    let mut limits = args.machine.limits();
    limits.batch = args.batch as usize;
    limits.prompt_tokens = args.prompt_tokens as usize;
    limits.new_tokens = args.max_new_tokens as usize;
    limits.image_side = args.image_side as usize;
    let plan = model.plan(&limits)?;
    let mut out = Stdout::new();
    if args.json {
        out.print_json(&PlanJson::from(&plan))?;
    } else {
        out.print(plan)?;
    }
    Ok(Outcome::Done)
}

/// `docs/json.md` promises this shape.
#[derive(Serialize)]
struct PlanJson {
    weights_bytes: usize,
    kv_bytes: usize,
    activation_bytes: usize,
    thread_bytes: usize,
    image_bytes: usize,
    text_bytes: usize,
    features_bytes: usize,
    session_bytes: usize,
    threads: usize,
}

impl From<&Plan> for PlanJson {
    fn from(plan: &Plan) -> Self {
        Self {
            weights_bytes: plan.weights_bytes,
            kv_bytes: plan.kv_bytes,
            activation_bytes: plan.activation_bytes,
            thread_bytes: plan.thread_bytes,
            image_bytes: plan.image_bytes,
            text_bytes: plan.text_bytes,
            features_bytes: plan.features_bytes,
            session_bytes: plan.session_bytes(),
            threads: plan.threads,
        }
    }
}
