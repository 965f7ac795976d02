"""Files with prompts, answers and labels."""
