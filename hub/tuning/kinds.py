"""The kinds of jobs of this room, by the names that stand in the rows. What each does is left to its handler."""

PLAN_KIND = "run.plan"
ORDER_KIND = "run.order"
TRAIN_KIND = "run.train"
MIRROR_KIND = "version.mirror"
DEPLOY_KIND = "version.deploy"
PUBLISH_KIND = "run.publish"
PROVE_KIND = "run.prove"
