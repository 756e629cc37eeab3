"""Which checkpoint a run goes on from: the newest that verifies, here or on Drive."""

from colabcnn.checkpoint_files import epoch_of
from colabcnn.errors import AnotherRunError, Error


def bring_from_drive(delivery, have, say, run=None):
    """Bring the newest checkpoint from Drive if it is newer than what is here, and say what was passed over.

    Args:
        delivery: `Delivery`.
        have: epoch of the newest checkpoint here that verifies, 0 for none.
        say: callable that shows a message.
        run: what tells this run from others, or None where that is not known yet.

    Returns:
        A dict of `fetched` (the checkpoint's name, or None where there is nothing newer), `brought` and `run`, as
        `DriveFolder.fetch` returns them.

    Raises:
        AnotherRunError: Drive holds another run.
        Error: it cannot be read and there is nothing here: the run may well be there, so none is begun.
    """
    try:
        told = delivery.fetch(have, run)
    except AnotherRunError:
        raise
    except Error as error:
        if not have:
            raise Error(f"{error} Nothing was begun, since the run may be there.") from None
        say(f"{error} Training goes on from the checkpoint here; it is delivered when Drive is back.")
        return {"fetched": None, "brought": [], "run": None}
    for reason in told["passed_over"].values():
        say(f"Passed over: {reason}")
    if told["fetched"]:
        say(f"Brought from {delivery.drive}: {told['fetched']}, epoch {epoch_of(told['fetched'])}, verified.")
    elif told["unreadable"] and not have:
        raise Error(
            f"no checkpoint in {delivery.drive} can be read, and there is none here. Nothing was begun, since the run "
            "may be there: give the same call again later, or --start-over (start_over=True)."
        )
    elif told["passed_over"] and not have and (kept := delivery.set_aside(list(told["passed_over"]))):
        say(f"No checkpoint in {delivery.drive} verifies; they are kept in {kept}.")
    return told
