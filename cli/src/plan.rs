//! `palmtop plan`: shows the memory of a session without creating one.

use palmtop_present::json;

use crate::args::PlanArgs;
use crate::output::Stdout;
use crate::{Outcome, models};

pub fn run(args: &PlanArgs) -> anyhow::Result<Outcome> {
    let model = models::open(&models::file(&args.model)?)?;
    let mut limits = args.machine.limits();
    limits.batch = args.batch as usize;
    limits.prompt_tokens = args.prompt_tokens as usize;
    limits.new_tokens = args.max_new_tokens as usize;
    limits.pictures = args.pictures as usize;
    limits.image_side = args.image_side as usize;
    let plan = model.plan(&limits)?;
    let mut out = Stdout::new();
    if args.json {
        out.print_json(&json::Plan::from(&plan))?;
    } else {
        out.print(plan)?;
    }
    Ok(Outcome::Done)
}
