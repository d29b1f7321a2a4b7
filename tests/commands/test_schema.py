"""`dcmsync schema`."""

import json

from tests.workdir import Workdir


def test_the_schema_is_json(workdir: Workdir) -> None:
    done = workdir.run("schema")
    assert done.status == 0, done
    assert set(json.loads(done.stdout)["$defs"]) >= {"Study", "Series", "Instance", "Outcome", "End"}
