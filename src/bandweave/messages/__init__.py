"""Messages between a controller and its nodes: what each may say, checked when it is heard.

Nothing that the other side says is used before it was read here. Knows no channels and no nodes.
The package gives all records; a module has those of one purpose, questions and answers.
"""

from bandweave.messages.accounts import AskState, AskStatistics, EngineState, Statistics
from bandweave.messages.answering import (
    Alive,
    Cancel,
    Finished,
    Learnt,
    Refused,
    Submit,
    Tokens,
    Vocabulary,
)
from bandweave.messages.loading import (
    BlockSums,
    ContentReport,
    Describe,
    Description,
    Found,
    Loaded,
    Progress,
)
from bandweave.messages.meeting import Broken, Echo, Join, Leave, Left, LinkEncryption, RouteTaken
from bandweave.messages.message import (
    M,
    Message,
    MessageError,
    Question,
    decode,
    decode_one,
    encode,
)
from bandweave.messages.standby import Alternative, AskStandby, Standby, StandbyState

__all__ = [
    "Alive",
    "Alternative",
    "AskStandby",
    "AskState",
    "AskStatistics",
    "BlockSums",
    "Broken",
    "Cancel",
    "ContentReport",
    "Describe",
    "Description",
    "Echo",
    "EngineState",
    "Finished",
    "Found",
    "Join",
    "Learnt",
    "Leave",
    "Left",
    "LinkEncryption",
    "Loaded",
    "M",
    "Message",
    "MessageError",
    "Progress",
    "Question",
    "Refused",
    "RouteTaken",
    "Standby",
    "StandbyState",
    "Statistics",
    "Submit",
    "Tokens",
    "Vocabulary",
    "decode",
    "decode_one",
    "encode",
]
