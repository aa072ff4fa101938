"""A small AWS on loopback: moto, with its tasks made real. A task goes through the states that
Fargate's go through, runs its command here with the container's environment, is STOPPED when that
ends, and has the public address 127.0.0.1. Run it as moto's server: fake_aws.py -H 127.0.0.1 -p PORT.
"""

import os
import signal
import subprocess
import sys
from datetime import datetime, timezone

import moto.ecs.models as ecs

PROCESSES = {}
Backend = ecs.EC2ContainerServiceBackend
original_init, original_stop, original_definition = ecs.Task.__init__, Backend.stop_task, ecs.TaskDefinition.__init__
original_resources, original_describe = Backend._calculate_task_resource_requirements, Backend.describe_tasks


def resources(task_definition):
    """moto wants the memory in the container, where Fargate does not need it."""
    for container in task_definition.container_definitions:
        if "memory" not in container and "memoryReservation" not in container:
            container["memory"] = int(task_definition.memory or 0)
    return original_resources(task_definition)


def define(definition, *args, **kwargs):
    original_definition(definition, *args, **kwargs)
    definition.registered_at = datetime.now(timezone.utc)


def begin(task, *args, **kwargs):
    original_init(task, *args, **kwargs)
    task.created_at = datetime.now(timezone.utc)
    network = (kwargs.get("networking_configuration") or {}).get("awsvpcConfiguration", {})
    if network.get("assignPublicIp") == "ENABLED":
        (interface,) = [d["value"] for d in task.attachments[0]["details"] if d["name"] == "networkInterfaceId"]
        ecs.ec2_backends[task._account_id][task.region_name].enis[interface].public_ip = "127.0.0.1"
    container = kwargs["task_definition"].container_definitions[0]
    override = (task.overrides.get("containerOverrides") or [{}])[0]
    env = {"PATH": os.environ["TASK_PATH"], "HOME": "/nonexistent"}
    env.update({pair["name"]: pair["value"] for pair in override.get("environment", [])})
    command = container.get("entryPoint", []) + (override.get("command") or container.get("command") or [])
    PROCESSES[task.id] = subprocess.Popen(command, env=env, start_new_session=True)
    task._transitions = [("PROVISIONING", "PENDING"), ("PENDING", "RUNNING")]
    task._status = "PROVISIONING"


def end(task, code, reason):
    task._status = task.desired_status = "STOPPED"
    task.stop_code, task.stopped_reason = code, reason
    task._transitions = [("STOPPED", "STOPPED")]


def look(backend):
    """Tasks whose command has ended are STOPPED, before anything of them is shown."""
    for cluster in backend.tasks.values():
        for task in cluster.values():
            process = PROCESSES.get(task.id)
            if process is None or process.poll() is None or task._status == "STOPPED":
                continue
            end(task, "EssentialContainerExited", "Essential container in task exited")
            for container in task.containers:
                container.exitCode = process.returncode


def describe(backend, cluster, tasks):
    look(backend)
    return original_describe(backend, cluster, tasks)


def stop(backend, cluster, task_id, reason):
    task = original_stop(backend, cluster, task_id, reason)
    task._transitions = [("STOPPED", "STOPPED")]
    process = PROCESSES.get(task.id)
    if process is not None and process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    return task


Backend._calculate_task_resource_requirements = staticmethod(resources)
Backend.stop_task = stop
ecs.Task.__init__ = begin
ecs.TaskDefinition.__init__ = define
Backend.describe_tasks = describe

if __name__ == "__main__":
    from moto.server import main

    main(sys.argv[1:])
