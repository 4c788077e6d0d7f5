package streamproof.interop;

import kafka.tools.StorageTool;

/** Formats the directories of a new Kafka cluster, one for each properties file that is named, as `kafka-storage` does. */
public final class Format {
    private Format() {}

    public static void main(String[] files) {
        for (String file : files) {
            String[] arguments = {"format", "--cluster-id", "c3RyZWFtcHJvb2YtaW50ZQ", "--config", file};
            int code = StorageTool.execute(arguments, System.err);
            if (code != 0) {
                System.exit(code);
            }
        }
    }
}
