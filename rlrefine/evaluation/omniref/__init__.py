"""The measures of OmniRef-Bench: subjects, background, lighting, pose, and a judge with a rubric."""
