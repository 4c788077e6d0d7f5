package streamproof.interop;

import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

import org.apache.kafka.clients.admin.AbortTransactionSpec;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.AlterConfigsOptions;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.CreatePartitionsOptions;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.DescribeClusterOptions;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.ListTransactionsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Asks a cluster of three brokers, one after the other, what a program can ask, rightly and wrongly, and prints each
 * answer: `step TAB outcome`, where a failure's outcome is the name of its exception. What differs from run to run (ids,
 * addresses, which broker leads) is not printed, so that two clusters can be compared.
 */
public final class Answers {
    private final String bootstrap;
    private final Admin admin;

    private Answers(String bootstrap) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(Map.of("bootstrap.servers", bootstrap, "default.api.timeout.ms", "20000",
            "request.timeout.ms", "10000"));
    }

    private interface Step {
        Object answer() throws Exception;
    }

    private static void step(String name, Step step) {
        String outcome;
        long started = System.currentTimeMillis();
        try {
            outcome = String.valueOf(step.answer());
        } catch (Exception e) {
            Throwable cause = e instanceof ExecutionException ? e.getCause() : e;
            outcome = cause.getClass().getSimpleName();
            System.err.println(name + ": " + cause);
        }
        long took = System.currentTimeMillis() - started;
        if (took > 1000) {
            System.err.println(name + " took " + took + " ms");
        }
        System.out.println(name + "\t" + outcome.replace('\n', ' '));
        System.out.flush();
    }

    public static void main(String[] arguments) {
        Answers answers = new Answers(arguments[0]);
        answers.topics();
        answers.configs();
        answers.records();
        answers.offsets();
        answers.groups("classic");
        answers.groups("consumer");
        answers.transactions();
        answers.cluster();
        answers.deletions();
        answers.admin.close(Duration.ofSeconds(5));
    }

    private void topics() {
        NewTopic first = new NewTopic("answers", 3, (short) 3).configs(Map.of("min.insync.replicas", "2"));
        step("create a topic", () -> admin.createTopics(List.of(first)).all().get());
        step("create it again", () -> admin.createTopics(List.of(first)).all().get());
        for (String name : List.of("", ".", "..", "a b", "x".repeat(250), "ümlaut")) {
            step("create a topic of " + name.length() + " characters like '" + name.substring(0, Math.min(3, name.length())) + "'",
                () -> admin.createTopics(List.of(new NewTopic(name, 1, (short) 1))).all().get());
        }
        step("create with 0 partitions", () -> create(new NewTopic("zero", 0, (short) 1)));
        step("create with 4 replicas", () -> create(new NewTopic("four", 1, (short) 4)));
        step("create with 0 replicas", () -> create(new NewTopic("none", 1, (short) 0)));
        step("create by a placement", () -> create(new NewTopic("placed", Map.of(0, List.of(2, 0), 1, List.of(1)))));
        step("create by a placement with a gap", () -> create(new NewTopic("gap", Map.of(0, List.of(0), 2, List.of(1)))));
        step("create by a placement twice on a broker", () -> create(new NewTopic("twice", Map.of(0, List.of(1, 1)))));
        step("create by a placement on a stranger", () -> create(new NewTopic("stranger", Map.of(0, List.of(9)))));
        step("create with an unknown setting",
            () -> create(new NewTopic("odd", 1, (short) 1).configs(Map.of("no.such.setting", "1"))));
        step("create with a bad value",
            () -> create(new NewTopic("bad", 1, (short) 1).configs(Map.of("retention.ms", "soon"))));
        step("create with brokers' defaults", () -> create(new NewTopic("default", Optional.empty(), Optional.empty())));
        step("only validate a creation", () -> {
            admin.createTopics(List.of(new NewTopic("unmade", 1, (short) 1)), new CreateTopicsOptions().validateOnly(true))
                .all().get();
            return admin.listTopics().names().get().contains("unmade");
        });
        step("list topics", () -> new TreeSet<>(admin.listTopics().names().get()));
        step("describe a topic", () -> describe("answers"));
        step("describe what was placed", () -> describe("placed"));
        step("describe what has defaults", () -> describe("default"));
        step("describe an unknown topic", () -> describe("unknown"));
        step("add partitions", () -> partitions("answers", 4, false));
        step("only validate more", () -> partitions("answers", 6, true));
        step("to as many partitions", () -> partitions("answers", 4, false));
        step("to fewer partitions", () -> partitions("answers", 2, false));
        step("partitions of an unknown topic", () -> partitions("unknown", 2, false));
        step("describe after that", () -> describe("answers"));
    }

    private Object create(NewTopic topic) throws Exception {
        return admin.createTopics(List.of(topic)).all().get();
    }

    private Object partitions(String topic, int count, boolean validate) throws Exception {
        return admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(count)),
            new CreatePartitionsOptions().validateOnly(validate)).all().get();
    }

    private String describe(String topic) throws Exception {
        TopicDescription found = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
        // New partitions have their leaders a moment later.
        for (int tries = 0; tries < 50 && found.partitions().stream().anyMatch(p -> p.leader() == null); tries++) {
            Thread.sleep(100);
            found = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
        }
        return found.name() + (found.isInternal() ? " internal" : "") + found.partitions().stream()
            .map(p -> " " + p.partition() + ":" + p.replicas().size() + "/" + p.isr().size() + (p.leader() == null ? "-" : "+")
                + p.elr().size() + p.lastKnownElr().size())
            .collect(Collectors.joining());
    }

    private static ConfigResource topic(String name) {
        return new ConfigResource(ConfigResource.Type.TOPIC, name);
    }

    private Object alter(ConfigResource what, boolean validate, AlterConfigOp.OpType how, String name, String value)
        throws Exception {
        AlterConfigOp change = new AlterConfigOp(new ConfigEntry(name, value), how);
        return admin.incrementalAlterConfigs(Map.of(what, List.of(change)), new AlterConfigsOptions().validateOnly(validate))
            .all().get();
    }

    /** What is not a default. */
    private Object changed(ConfigResource what) throws Exception {
        Map<String, String> found = new TreeMap<>();
        for (ConfigEntry entry : admin.describeConfigs(Set.of(what)).all().get().get(what).entries()) {
            if (entry.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG) {
                found.put(entry.name(), entry.value());
            }
        }
        return found;
    }

    private void configs() {
        AlterConfigOp.OpType set = AlterConfigOp.OpType.SET;
        AlterConfigOp.OpType delete = AlterConfigOp.OpType.DELETE;
        ConfigResource answers = topic("answers");
        step("set a topic's setting", () -> alter(answers, false, set, "retention.ms", "1000000"));
        step("set a number to letters", () -> alter(answers, false, set, "retention.ms", "later"));
        step("set an unknown setting", () -> alter(answers, false, set, "no.such.setting", "1"));
        step("set too few replicas", () -> alter(answers, false, set, "min.insync.replicas", "0"));
        step("set a cleanup policy", () -> alter(answers, false, set, "cleanup.policy", "compact,delete"));
        step("set an unknown policy", () -> alter(answers, false, set, "cleanup.policy", "burn"));
        step("append to a list", () -> alter(answers, false, AlterConfigOp.OpType.APPEND, "cleanup.policy", "delete"));
        step("subtract from a list", () -> alter(answers, false, AlterConfigOp.OpType.SUBTRACT, "cleanup.policy", "compact"));
        step("append to a number", () -> alter(answers, false, AlterConfigOp.OpType.APPEND, "retention.ms", "1"));
        step("only validate a setting", () -> alter(answers, true, set, "retention.bytes", "5"));
        step("set in an unknown topic", () -> alter(topic("unknown"), false, set, "retention.ms", "1"));
        step("what was set", () -> changed(answers));
        step("delete a setting", () -> alter(answers, false, delete, "retention.ms", ""));
        step("delete it again", () -> alter(answers, false, delete, "retention.ms", ""));
        step("what is set now", () -> changed(answers));
        step("settings of an unknown topic", () -> changed(topic("unknown")));
        step("a setting of a topic by default", () -> {
            Map<String, String> found = new TreeMap<>();
            for (ConfigEntry entry : admin.describeConfigs(Set.of(topic("placed"))).all().get().get(topic("placed")).entries()) {
                if (Set.of("cleanup.policy", "retention.ms", "min.insync.replicas", "message.timestamp.type",
                    "unclean.leader.election.enable", "compression.type", "max.message.bytes").contains(entry.name())) {
                    found.put(entry.name(), entry.value() + " " + entry.type());
                }
            }
            return found;
        });
    }

    private Properties producer(String... more) {
        Properties p = new Properties();
        p.put("bootstrap.servers", bootstrap);
        p.put("key.serializer", StringSerializer.class.getName());
        p.put("value.serializer", StringSerializer.class.getName());
        p.put("delivery.timeout.ms", "30000");
        p.put("request.timeout.ms", "10000");
        p.put("max.block.ms", "20000");
        for (int i = 0; i < more.length; i += 2) {
            p.put(more[i], more[i + 1]);
        }
        return p;
    }

    private Properties consumer(String... more) {
        Properties p = new Properties();
        p.put("bootstrap.servers", bootstrap);
        p.put("key.deserializer", StringDeserializer.class.getName());
        p.put("value.deserializer", StringDeserializer.class.getName());
        p.put("auto.offset.reset", "earliest");
        p.put("enable.auto.commit", "false");
        p.put("default.api.timeout.ms", "20000");
        p.put("request.timeout.ms", "10000");
        for (int i = 0; i < more.length; i += 2) {
            p.put(more[i], more[i + 1]);
        }
        return p;
    }

    private void records() {
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            step("write with " + codec, () -> {
                try (var producer = new KafkaProducer<String, String>(producer("compression.type", codec, "linger.ms", "20"))) {
                    var sent = IntStream.range(0, 10).mapToObj(n -> producer.send(
                        new ProducerRecord<>("answers", 0, 1000L + n, codec + n, codec.repeat(50)))).toList();
                    return sent.get(9).get().offset();
                }
            });
        }
        step("write with acks=1", () -> write("answers", 1, "one", "acks", "1", "enable.idempotence", "false"));
        step("write with acks=0", () -> write("answers", 1, "two", "acks", "0", "enable.idempotence", "false"));
        step("write too large a record", () -> write("answers", 1, "x".repeat(1_200_000), "max.request.size", "9000000"));
        step("write to a partition that is not there", () -> write("answers", 77, "x", "max.block.ms", "2000"));
        step("write to a topic made on demand", () -> write("on-demand", 0, "x"));
        step("write to a bad topic name", () -> write("bad name", 0, "x"));
        step("write more than the in-sync replicas allow", () -> {
            create(new NewTopic("strict", 1, (short) 1).configs(Map.of("min.insync.replicas", "2")));
            return write("strict", 0, "x", "delivery.timeout.ms", "3000", "request.timeout.ms", "2000");
        });
        step("a topic that takes its own time", () -> {
            create(new NewTopic("own-time", 1, (short) 3).configs(Map.of("message.timestamp.type", "LogAppendTime")));
            write("own-time", 0, "x");
            ConsumerRecord<String, String> found = read("own-time", "read_uncommitted").get(0);
            return found.timestampType() + " " + (found.timestamp() > 1_600_000_000_000L);
        });
        step("read all", () -> read("answers", "read_uncommitted").stream()
            .map(r -> r.partition() + "/" + r.offset() + "=" + r.key() + "@" + (r.partition() == 0 ? r.timestamp() : 0))
            .sorted().collect(Collectors.joining(" ")));
        step("read a compacted topic's null key", () -> {
            create(new NewTopic("compacted", 1, (short) 3).configs(Map.of("cleanup.policy", "compact")));
            return write("compacted", 0, "without a key", "delivery.timeout.ms", "5000", "request.timeout.ms", "3000");
        });
    }

    private Object write(String topic, int partition, String value, String... more) throws Exception {
        try (var producer = new KafkaProducer<String, String>(producer(more))) {
            return producer.send(new ProducerRecord<>(topic, partition, null, value)).get().offset();
        }
    }

    private List<ConsumerRecord<String, String>> read(String topic, String isolation) {
        try (var consumer = new KafkaConsumer<String, String>(consumer("isolation.level", isolation))) {
            List<TopicPartition> all = consumer.partitionsFor(topic).stream()
                .map(p -> new TopicPartition(topic, p.partition())).toList();
            consumer.assign(all);
            consumer.seekToBeginning(all);
            Map<TopicPartition, Long> ends = consumer.endOffsets(all);
            List<ConsumerRecord<String, String>> found = new java.util.ArrayList<>();
            long deadline = System.currentTimeMillis() + 20_000;
            while (all.stream().anyMatch(p -> consumer.position(p) < ends.get(p)) && System.currentTimeMillis() < deadline) {
                consumer.poll(Duration.ofMillis(200)).forEach(found::add);
            }
            return found;
        }
    }

    private void offsets() {
        TopicPartition first = new TopicPartition("answers", 0);
        for (var spec : new TreeMap<>(Map.of("earliest", OffsetSpec.earliest(), "latest", OffsetSpec.latest(),
            "the largest timestamp", OffsetSpec.maxTimestamp(), "a time", OffsetSpec.forTimestamp(1005),
            "a time to come", OffsetSpec.forTimestamp(4_000_000_000_000L), "the earliest here", OffsetSpec.earliestLocal(),
            "the latest tiered", OffsetSpec.latestTiered())).entrySet()) {
            step("offset of " + spec.getKey(), () -> {
                var found = admin.listOffsets(Map.of(first, spec.getValue())).all().get().get(first);
                return found.offset() + "@" + found.timestamp();
            });
        }
        step("offset in an unknown topic", () -> {
            TopicPartition unknown = new TopicPartition("unknown", 0);
            return admin.listOffsets(Map.of(unknown, OffsetSpec.latest())).partitionResult(unknown).get();
        });
        step("offset out of range without a reset", () -> {
            try (var consumer = new KafkaConsumer<String, String>(consumer("auto.offset.reset", "none"))) {
                consumer.assign(List.of(first));
                consumer.seek(first, 5_000_000);
                return consumer.poll(Duration.ofSeconds(10)).count();
            }
        });
        step("offset out of range with one", () -> {
            try (var consumer = new KafkaConsumer<String, String>(consumer())) {
                consumer.assign(List.of(first));
                consumer.seek(first, 5_000_000);
                return consumer.poll(Duration.ofSeconds(10)).iterator().next().offset();
            }
        });
        step("delete records", () -> admin.deleteRecords(Map.of(first, RecordsToDelete.beforeOffset(5)))
            .lowWatermarks().get(first).get().lowWatermark());
    }

    private void groups(String protocol) {
        String group = "group-" + protocol;
        TopicPartition first = new TopicPartition("answers", 0);
        step(protocol + ": a member is given partitions and reads", () -> {
            try (var consumer = member(group, protocol)) {
                consumer.subscribe(List.of("answers"));
                long deadline = System.currentTimeMillis() + 20_000;
                boolean all = false;
                while (!all && System.currentTimeMillis() < deadline) {
                    consumer.poll(Duration.ofMillis(200));
                    var ends = consumer.endOffsets(consumer.assignment());
                    all = ends.size() == 4 && ends.entrySet().stream().allMatch(e -> consumer.position(e.getKey()) >= e.getValue());
                }
                consumer.commitSync();
                String described = describeGroup(group);
                String busy = outcome(() -> admin.deleteConsumerGroups(List.of(group)).all().get());
                String subscribed = outcome(() -> admin.deleteConsumerGroupOffsets(group, Set.of(first)).all().get());
                String altered = outcome(() -> admin.alterConsumerGroupOffsets(group, Map.of(first, new OffsetAndMetadata(1)))
                    .all().get());
                return consumer.assignment().size() + " partitions; " + described + "; delete the group: " + busy
                    + "; delete an offset: " + subscribed + "; alter one: " + altered;
            }
        });
        step(protocol + ": describe it empty", () -> describeGroup(group));
        step(protocol + ": offsets of the group", () -> new TreeMap<>(admin.listConsumerGroupOffsets(group)
            .partitionsToOffsetAndMetadata().get().entrySet().stream()
            .collect(Collectors.toMap(e -> e.getKey().toString(), e -> e.getValue().offset()))));
        step(protocol + ": alter an offset", () -> admin.alterConsumerGroupOffsets(group,
            Map.of(first, new OffsetAndMetadata(3, Optional.of(1), "note"))).all().get());
        step(protocol + ": the altered offset", () -> admin.listConsumerGroupOffsets(group)
            .partitionsToOffsetAndMetadata().get().get(first));
        step(protocol + ": delete an offset", () -> admin.deleteConsumerGroupOffsets(group, Set.of(first)).all().get());
        step(protocol + ": delete an offset of an unknown partition",
            () -> admin.deleteConsumerGroupOffsets(group, Set.of(new TopicPartition("unknown", 0))).all().get());
        step(protocol + ": list groups", () -> admin.listGroups().all().get().stream()
            .filter(g -> g.groupId().equals(group))
            .map(g -> g.groupId() + " " + g.type() + " " + g.protocol() + " " + g.groupState()).toList());
        step(protocol + ": delete the group", () -> admin.deleteConsumerGroups(List.of(group)).all().get());
        step(protocol + ": delete it again", () -> admin.deleteConsumerGroups(List.of(group)).all().get());
        step(protocol + ": describe it when it is gone", () -> describeGroup(group));
        step(protocol + ": offsets of one that is gone", () -> admin.listConsumerGroupOffsets(group)
            .partitionsToOffsetAndMetadata().get());
    }

    private KafkaConsumer<String, String> member(String group, String protocol) {
        return new KafkaConsumer<>(consumer("group.id", group, "group.protocol", protocol));
    }

    private static String outcome(Step step) {
        try {
            return String.valueOf(step.answer());
        } catch (ExecutionException e) {
            return e.getCause().getClass().getSimpleName();
        } catch (Exception e) {
            return e.getClass().getSimpleName();
        }
    }

    private String describeGroup(String group) throws Exception {
        ConsumerGroupDescription found = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
        return found.groupState() + " " + found.type() + " " + found.partitionAssignor() + " " + found.members().size()
            + " members of " + found.members().stream().mapToInt(m -> m.assignment().topicPartitions().size()).sum()
            + " partitions";
    }

    private void transactions() {
        step("a topic for transactions", () -> create(new NewTopic("transacted", 1, (short) 3)));
        step("commit a transaction", () -> {
            try (var producer = transactional("first")) {
                producer.beginTransaction();
                producer.send(new ProducerRecord<>("transacted", "a", "committed")).get();
                producer.sendOffsetsToTransaction(Map.of(new TopicPartition("answers", 0), new OffsetAndMetadata(7)),
                    new org.apache.kafka.clients.consumer.ConsumerGroupMetadata("transacted-group"));
                producer.commitTransaction();
                return committed("transacted-group", new TopicPartition("answers", 0)) + " " + settled();
            }
        });
        step("abort a transaction", () -> {
            try (var producer = transactional("first")) {
                producer.beginTransaction();
                producer.send(new ProducerRecord<>("transacted", "b", "aborted")).get();
                producer.abortTransaction();
                return settled() + " " + values("read_uncommitted");
            }
        });
        step("an open transaction", () -> {
            try (var producer = transactional("open")) {
                producer.beginTransaction();
                producer.send(new ProducerRecord<>("transacted", "c", "open")).get();
                String told = values("read_committed") + " " + values("read_uncommitted");
                var described = admin.describeTransactions(List.of("open")).all().get().get("open");
                told += " " + described.state() + " " + described.topicPartitions() + " "
                    + described.transactionTimeoutMs() + " " + described.transactionStartTimeMs().isPresent();
                told += " listed: " + listed(new ListTransactionsOptions().filterStates(Set.of(TransactionState.ONGOING)));
                told += " long: " + listed(new ListTransactionsOptions().filterOnDuration(3_600_000));
                producer.commitTransaction();
                return told;
            }
        });
        step("transactions that are over", () -> {
            List<String> found = List.of();
            for (int tries = 0; tries < 50 && !found.toString().contains("open COMPLETE_COMMIT"); tries++) {
                Thread.sleep(100);
                found = listed(new ListTransactionsOptions());
            }
            return found;
        });
        step("describe an unknown transactional id", () -> admin.describeTransactions(List.of("unknown")).all().get());
        step("a second producer of an id fences the first", () -> {
            try (var old = transactional("fenced")) {
                old.beginTransaction();
                old.send(new ProducerRecord<>("transacted", "d", "by the old one")).get();
                try (var young = transactional("fenced")) {
                    young.beginTransaction();
                    young.send(new ProducerRecord<>("transacted", "d", "by the young one")).get();
                    String told = outcome(old::commitTransactionOnce);
                    young.commitTransaction();
                    return told + " " + settled();
                }
            }
        });
        step("fence a producer by its id", () -> {
            try (var producer = transactional("put-out")) {
                producer.beginTransaction();
                producer.send(new ProducerRecord<>("transacted", "e", "put out")).get();
                admin.fenceProducers(List.of("put-out")).all().get();
                return outcome(producer::commitTransactionOnce) + " " + settled().contains("put out");
            }
        });
        step("describe producers", () -> admin.describeProducers(List.of(new TopicPartition("transacted", 0))).all().get()
            .values().stream().mapToLong(s -> s.activeProducers().size()).sum() > 0);
        step("abort a transaction that is not there", () -> admin.abortTransaction(
            new AbortTransactionSpec(new TopicPartition("transacted", 0), 987_654, (short) 0, 0)).all().get());
        step("too long a time-out", () -> {
            try (var producer = new KafkaProducer<String, String>(
                producer("transactional.id", "long", "transaction.timeout.ms", "90000000"))) {
                producer.initTransactions();
                return "granted";
            }
        });
    }

    /** Markers reach the group's coordinator after the commit is answered. */
    private long committed(String group, TopicPartition partition) throws Exception {
        OffsetAndMetadata found = null;
        for (int tries = 0; tries < 50 && found == null; tries++) {
            Thread.sleep(100);
            found = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(partition);
        }
        return found == null ? -1 : found.offset();
    }

    private List<String> listed(ListTransactionsOptions options) throws Exception {
        return admin.listTransactions(options).all().get().stream()
            .map(t -> t.transactionalId() + " " + t.state().name()).sorted().toList();
    }

    private Transactional transactional(String id) {
        Transactional producer = new Transactional(producer("transactional.id", id, "transaction.timeout.ms", "60000"));
        producer.initTransactions();
        return producer;
    }

    /** With a commit that can be a step. */
    private static final class Transactional extends KafkaProducer<String, String> {
        Transactional(Properties properties) {
            super(properties);
        }

        Object commitTransactionOnce() {
            commitTransaction();
            return "committed";
        }
    }

    /** What is committed once no transaction is open: markers are written after the end is answered. */
    private String settled() throws Exception {
        TopicPartition only = new TopicPartition("transacted", 0);
        for (int tries = 0; tries < 50; tries++) {
            long ends[] = new long[2];
            int i = 0;
            for (var isolation : List.of(IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)) {
                ends[i++] = admin.listOffsets(Map.of(only, OffsetSpec.latest()), new ListOffsetsOptions(isolation))
                    .partitionResult(only).get().offset();
            }
            if (ends[0] == ends[1]) {
                break;
            }
            Thread.sleep(100);
        }
        return values("read_committed");
    }

    private String values(String isolation) {
        return read("transacted", isolation).stream().map(ConsumerRecord::value).toList().toString();
    }

    private void cluster() {
        step("brokers", () -> admin.describeCluster().nodes().get().stream().map(n -> n.id()).sorted().toList());
        step("fenced brokers too", () -> admin.describeCluster(new DescribeClusterOptions().includeFencedBrokers(true))
            .nodes().get().size());
        step("elect preferred leaders where they lead", () -> admin.electLeaders(ElectionType.PREFERRED,
            Set.of(new TopicPartition("placed", 0))).all().get());
        step("elect in an unknown topic", () -> admin.electLeaders(ElectionType.PREFERRED,
            Set.of(new TopicPartition("unknown", 0))).all().get());
        step("voters of the quorum", () -> admin.describeMetadataQuorum().quorumInfo().get().voters().size());
        step("finalized features", () -> new TreeSet<>(admin.describeFeatures().featureMetadata().get()
            .finalizedFeatures().keySet()));
        step("reassignments", () -> admin.listPartitionReassignments().reassignments().get());
        step("log directories", () -> admin.describeLogDirs(List.of(0, 1, 2)).allDescriptions().get().size());
        step("access rules", () -> admin.describeAcls(AclBindingFilter.ANY).values().get());
        step("client quotas", () -> admin.describeClientQuotas(ClientQuotaFilter.all()).entities().get());
        step("SCRAM users", () -> admin.describeUserScramCredentials().all().get());
        step("delegation tokens", () -> admin.describeDelegationToken().delegationTokens().get());
        step("unregister a broker that is not there", () -> admin.unregisterBroker(99).all().get());
        step("client metrics settings", () -> admin.listConfigResources().all().get());
    }

    private void deletions() {
        Collection<String> made = List.of("answers", "placed", "default", "on-demand", "strict", "own-time", "compacted",
            "transacted");
        step("delete topics", () -> admin.deleteTopics(made).all().get());
        step("delete an unknown topic", () -> admin.deleteTopics(List.of("unknown")).all().get());
        step("topics that are left", () -> {
            Set<String> left = admin.listTopics().names().get();
            // Any broker may be asked, and hears of it a moment after the controller has decided.
            for (int tries = 0; tries < 50 && made.stream().anyMatch(left::contains); tries++) {
                Thread.sleep(100);
                left = admin.listTopics().names().get();
            }
            return new TreeSet<>(left);
        });
    }
}
