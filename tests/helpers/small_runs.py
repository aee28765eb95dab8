"""Overrides of vla-train for a policy of a few thousand weights and a run of seconds."""

SMALL_POLICY = [
    "policy.transformer={width:32,depth:2,heads:2,time_width:16}",
    "policy.encoder={channels:[8,16],keypoints:4,grid:2}",
]
SHORT_RUN = ["trainer.batch_size=8", "trainer.precision=fp32", "trainer.threads=1"]
