//! `palmtop plan`: shows the memory of a session without creating one.

use palmtop_present::json;

use crate::args::PlanArgs;
use crate::output::{Console, Stdout};
use crate::{Outcome, models};

pub fn run(args: &PlanArgs, console: Console) -> anyhow::Result<Outcome> {
    let model = models::open_named(&args.model, console)?;
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
        return Ok(Outcome::Done);
    }
    out.print(&plan)?;
    // Counted are those of one picture; whoever asks about several keeps the others beside the session.
    if let others @ 1.. = limits.pictures - 1 {
        let features = others.saturating_mul(plan.features_bytes);
        let all = plan.session_bytes().saturating_add(features);
        let pictures = if others == 1 { "other picture" } else { "other pictures" };
        out.print(format_args!(
            "and {features} bytes of features of the {others} {pictures}: {all} bytes in all\n"
        ))?;
    }
    Ok(Outcome::Done)
}
