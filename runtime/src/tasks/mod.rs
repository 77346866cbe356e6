//! PaliGemma's tasks: the prompts that ask for them and the answers that they give.
