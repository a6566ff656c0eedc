package org.casewire.benchmarks;

import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.Stores;

/**
 * Keeps the latest value of each key in a store with a changelog, and publishes it if it is given a
 * topic to do so. Says "warm" when so many records went through, and has it all committed after the
 * last one; ends when its input ends.
 *
 * <p>Arguments: servers, prefix of topics, group, warm, total, folder, "memory" or "rocksdb", name of
 * the topic to publish to or nothing, and settings as NAME=VALUE.
 */
public final class LatestState {
    private static final AtomicLong SEEN = new AtomicLong();

    private static final class Count implements FixedKeyProcessor<byte[], byte[], byte[]> {
        private final long warm;
        private final long total;
        private FixedKeyProcessorContext<byte[], byte[]> context;

        private Count(long warm, long total) {
            this.warm = warm;
            this.total = total;
        }

        @Override
        public void init(FixedKeyProcessorContext<byte[], byte[]> context) {
            this.context = context;
        }

        @Override
        public void process(FixedKeyRecord<byte[], byte[]> record) {
            context.forward(record);
            long seen = SEEN.incrementAndGet();
            if (seen == warm) {
                System.out.println("warm");
            }
            if (seen == total) {
                context.commit();
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        String servers = arguments[0];
        String prefix = arguments[1];
        String name = arguments[2];
        long warm = Long.parseLong(arguments[3]);
        long total = Long.parseLong(arguments[4]);
        String folder = arguments[5];
        String store = arguments[6];
        String output = arguments[7];

        StreamsBuilder builder = new StreamsBuilder();
        Materialized<byte[], byte[], org.apache.kafka.streams.state.KeyValueStore<org.apache.kafka.common.utils.Bytes, byte[]>> kept =
                store.equals("memory")
                        ? Materialized.as(Stores.inMemoryKeyValueStore("latest"))
                        : Materialized.as("latest");
        KTable<byte[], byte[]> latest = builder
                .<byte[], byte[]>stream(prefix + "cases")
                .processValues(() -> new Count(warm, total))
                .groupByKey(Grouped.with(Serdes.ByteArray(), Serdes.ByteArray()))
                .reduce((held, value) -> value, kept.withKeySerde(Serdes.ByteArray()).withValueSerde(Serdes.ByteArray()));
        if (!output.isEmpty()) {
            latest.toStream().to(prefix + output);
        }

        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, name);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, servers);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, folder);
        settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1000);
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        for (int i = 8; i < arguments.length; i++) { // NAME=VALUE, of Kafka's own names
            String[] pair = arguments[i].split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        try (KafkaStreams streams = new KafkaStreams(builder.build(), settings)) {
            streams.start();
            while (System.in.read() >= 0) { // until the benchmark has seen what it waited for
            }
        }
    }
}
