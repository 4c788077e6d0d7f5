package streamproof.interop;

import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Base64;

import org.apache.kafka.common.utils.Exit;

/**
 * Runs Kafka's command-line tools in one virtual machine, which saves a second for each.
 *
 * <p>Reads one command a line, the class of a tool and its arguments with tabs between them, and answers each with one
 * line: the exit code and, in base 64, what was printed.
 */
public final class Tools {
    private Tools() {}

    /** In place of the end of the process. */
    private static final class Ended extends RuntimeException {
        final int code;

        Ended(int code) {
            super(null, null, false, false);
            this.code = code;
        }
    }

    public static void main(String[] none) throws Exception {
        Exit.setExitProcedure((code, message) -> {
            throw new Ended(code);
        });
        Exit.setHaltProcedure((code, message) -> {
            throw new Ended(code);
        });
        PrintStream answers = System.out;
        // One stream for all of them: some tools keep the one they first saw.
        ByteArrayOutputStream printed = new ByteArrayOutputStream();
        PrintStream said = new PrintStream(printed, true, StandardCharsets.UTF_8);
        System.setOut(said);
        System.setErr(said);
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = commands.readLine()) != null;) {
            printed.reset();
            int code = run(line.split("\t"));
            answers.println(code + " " + Base64.getEncoder().encodeToString(printed.toByteArray()));
            answers.flush();
        }
    }

    private static int run(String[] command) {
        Object arguments = Arrays.copyOfRange(command, 1, command.length);
        try {
            Class.forName(command[0]).getMethod("main", String[].class).invoke(null, arguments);
            return 0;
        } catch (InvocationTargetException e) {
            return e.getCause() instanceof Ended ended ? ended.code : uncaught(e.getCause());
        } catch (ReflectiveOperationException e) {
            return uncaught(e);
        }
    }

    private static int uncaught(Throwable e) {
        e.printStackTrace();
        return 1;
    }
}
