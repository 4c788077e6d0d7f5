"""The table of APIs and versions, ours beside Apache Kafka's: `APIS.md`, made here and held to be current.

What each broker answers to ApiVersions, as Kafka's `kafka-broker-api-versions` prints it.
"""

import re

from harness import HERE, WORK, expect
from jvm import Tools

FILE = HERE / "APIS.md"

LINE = re.compile(r"^\s+(\w+)\((\d+)\): (?:(\d+)(?: to (\d+))? |(UNSUPPORTED))", re.MULTILINE)

# Why an API of Kafka's brokers is not served here, or one is that Kafka's do not tell clients of.
BETWEEN = "between brokers: ours listen once, Kafka's have a listener of their own for controllers"
NO_SECURITY = "no authentication or authorization: whoever reaches the socket may do all"
NO_SHARES = "share groups (KIP-932) are not there"
NO_STREAMS = "the streams group protocol (KIP-1071) is not there"
NO_REASSIGNMENT = "replicas stay where they were placed"
WHY = {
    "Vote": BETWEEN, "BeginQuorumEpoch": BETWEEN, "EndQuorumEpoch": BETWEEN, "FetchSnapshot": BETWEEN,
    "AlterPartition": BETWEEN, "Envelope": BETWEEN, "BrokerRegistration": BETWEEN, "BrokerHeartbeat": BETWEEN,
    "AllocateProducerIds": BETWEEN, "AssignReplicasToDirs": BETWEEN,
    "SaslHandshake": NO_SECURITY, "SaslAuthenticate": NO_SECURITY, "DescribeAcls": NO_SECURITY,
    "CreateAcls": NO_SECURITY, "DeleteAcls": NO_SECURITY, "CreateDelegationToken": NO_SECURITY,
    "RenewDelegationToken": NO_SECURITY, "ExpireDelegationToken": NO_SECURITY,
    "DescribeDelegationToken": NO_SECURITY, "DescribeUserScramCredentials": NO_SECURITY,
    "AlterUserScramCredentials": NO_SECURITY,
    "DescribeClientQuotas": "no quotas", "AlterClientQuotas": "no quotas",
    "AlterReplicaLogDirs": "one directory a broker", "DescribeLogDirs": "one directory a broker",
    "AlterPartitionReassignments": NO_REASSIGNMENT, "ListPartitionReassignments": NO_REASSIGNMENT,
    "ListTransactions": "from 2 on by a pattern of RE2's syntax",
    "OffsetCommit": "from 10 on by topic ids", "OffsetFetch": "from 10 on by topic ids",
    "GetTelemetrySubscriptions": "no client telemetry (KIP-714)", "PushTelemetry": "no client telemetry (KIP-714)",
    "ListConfigResources": "no client telemetry (KIP-714)", "UpdateFeatures": "features are those of the program",
    "AddRaftVoter": "the quorum is fixed at the start", "RemoveRaftVoter": "the quorum is fixed at the start",
    "UpdateRaftVoter": "the quorum is fixed at the start",
    "DescribeProducers": "not there yet",
    "InitProducerId": "two-phase commit (KIP-939)",
}
for name in ("ShareGroupHeartbeat", "ShareGroupDescribe", "ShareFetch", "ShareAcknowledge", "InitializeShareGroupState",
             "ReadShareGroupState", "WriteShareGroupState", "DeleteShareGroupState", "ReadShareGroupStateSummary",
             "DescribeShareGroupOffsets", "AlterShareGroupOffsets", "DeleteShareGroupOffsets"):
    WHY[name] = NO_SHARES
for name in ("StreamsGroupHeartbeat", "StreamsGroupDescribe"):
    WHY[name] = NO_STREAMS


def versions(cluster):
    """(key, name) and range of each API of the first broker."""
    with Tools(cluster.bootstrap) as tools:
        said = tools.must("api-versions")
    first = said.split(") -> (")[1]
    found = {}
    for name, key, low, high, unsupported in LINE.findall(first):
        if not unsupported:
            found[int(key)] = name, (int(low), int(high or low))
    expect(len(found) > 20, f"{cluster.NAME} told of {len(found)} APIs")
    return found


def shown(versions):
    return "" if versions is None else f"{versions[0]} to {versions[1]}" if versions[0] < versions[1] else f"{versions[0]}"


def document(ours, theirs, kafka):
    lines = ["# APIs and versions", "",
             "Ours beside Apache Kafka's, as their brokers answer ApiVersions. Made by `tests/interop/run beside-apis`,",
             "which fails when this file is not what it finds.", "",
             f"| key | API | streamproof | Apache Kafka {kafka} | why they differ |", "|--|--|--|--|--|"]
    for key in sorted(ours.keys() | theirs.keys()):
        name = (theirs.get(key) or ours.get(key))[0]
        one, other = ours.get(key, (name, None))[1], theirs.get(key, (name, None))[1]
        why = "" if one == other else WHY.get(name, "")
        if one and other and one != other and not why:
            why = "the newest versions are not spoken yet" if one[0] == other[0] and one[1] < other[1] else (
                "versions that Kafka 4 gave up are spoken too" if one[1] == other[1] else
                "older and newer ranges differ")
        lines.append(f"| {key} | {name} | {shown(one)} | {shown(other)} | {why} |")
    both = [key for key in ours if key in theirs]
    same = sum(ours[key][1] == theirs[key][1] for key in both)
    reach = sum(ours[key][1][1] >= theirs[key][1][1] for key in both)
    lines += ["", f"{len(ours)} APIs are served here and {len(theirs)} there, {len(both)} by both: {reach} of these up to "
                  f"the newest version, {same} in the same range."]
    return "\n".join(lines) + "\n"


def check(ours, theirs):
    jar = next((WORK / "java/lib").glob("kafka-clients-*.jar"))
    one, other = versions(ours), versions(theirs)
    found = document(one, other, jar.stem.rsplit("-", 1)[1])
    unexplained = [line.split(" | ")[1] for line in found.splitlines() if line.startswith("| ") and line.endswith("|  |")
                   and line.split(" | ")[2] != line.split(" | ")[3]]
    fresh = WORK / "APIS.md"
    fresh.write_text(found)
    expect(not unexplained, f"nothing is said of why these differ: {unexplained}")
    expect(FILE.exists() and FILE.read_text() == found, f"tests/interop/APIS.md is not current: {fresh} is")
    return f"{len(one)} APIs here and {len(other)} there, as tests/interop/APIS.md says"
