package org.casewire.examples;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Prints the latest state of a case, read from the topic casewire.case-state.
 *
 * <pre>mvn -q compile exec:java -Dexec.args="127.0.0.1:9092 my-project/CASE_ID"</pre>
 *
 * It reads the topic to its present end; a subscriber that stays goes on reading.
 */
public final class LatestState {
    /** The value is null of a case that has been gone for 30 days. */
    private record State(long version, String value) {}

    private final Map<String, State> states = new HashMap<>();

    /** Puts a record in its place: of each key, the state with the greatest version stays. */
    private void keep(ConsumerRecord<String, String> record) {
        Header version = record.headers().lastHeader("casewire-version");
        long number = Long.parseLong(new String(version.value(), StandardCharsets.UTF_8));
        State held = states.get(record.key());
        if (held == null || number >= held.version()) {
            states.put(record.key(), new State(number, record.value()));
        }
    }

    private void read(KafkaConsumer<String, String> consumer, String topic) {
        List<TopicPartition> partitions = consumer.partitionsFor(topic).stream()
                .map(partition -> new TopicPartition(topic, partition.partition()))
                .toList();
        consumer.assign(partitions);
        consumer.seekToBeginning(partitions);
        Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
        while (ends.entrySet().stream().anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
            consumer.poll(Duration.ofMillis(500)).forEach(this::keep);
        }
    }

    public static void main(String[] arguments) {
        if (arguments.length < 2) {
            System.err.println("usage: LatestState SERVERS PROJECT/CASE_ID [TOPIC]");
            System.exit(2);
        }
        String topic = arguments.length > 2 ? arguments[2] : "casewire.case-state";
        Map<String, Object> settings = Map.of(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        LatestState latest = new LatestState();
        try (var consumer =
                new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            latest.read(consumer, topic);
        }
        State state = latest.states.get(arguments[1]);
        if (state == null || state.value() == null) {
            System.err.println("there is no state of " + arguments[1]);
            System.exit(1);
        }
        byte[] line = (state.value() + "\n").getBytes(StandardCharsets.UTF_8);
        System.out.write(line, 0, line.length);
        System.out.flush();
    }
}
