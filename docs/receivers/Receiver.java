// Verifies TIW callbacks. The JDK has no JSON parser: this needs Jackson (Debian: libjackson2-databind-java).
// KEYRING=keyring.json SDK_APP_ID=1400000001 PORT=8080 java -cp '/usr/share/java/*' Receiver.java
import com.fasterxml.jackson.databind.*;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.sun.net.httpserver.HttpServer;
import java.security.MessageDigest;
class Receiver {
    static final ObjectMapper JSON = new ObjectMapper().enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);
    static volatile JsonNode keys = JSON.createArrayNode(); // the last good ones
    static void readKeys() throws Exception {
        var accept = JSON.readTree(new java.io.File(System.getenv("KEYRING"))).path("accept");
        for (var key : accept) if (!key.isTextual() || key.asText().isEmpty()) return;
        if (accept.isArray() && !accept.isEmpty()) keys = accept;
    }
    static boolean genuine(ObjectNode callback) throws Exception {
        JsonNode app = callback.path("SdkAppId"), expire = callback.path("ExpireTime"), sign = callback.path("Sign");
        if (!app.isIntegralNumber() || !app.asText().equals(System.getenv("SDK_APP_ID")) || !sign.isTextual()) return false;
        if (!expire.isIntegralNumber() || !expire.canConvertToLong() || expire.asLong() < System.currentTimeMillis() / 1000) return false;
        for (var key : keys) {
            var md5 = MessageDigest.getInstance("MD5").digest((key.asText() + expire.asText()).getBytes("UTF-8"));
            var wanted = String.format("%032x", new java.math.BigInteger(1, md5)).getBytes("UTF-8");
            if (MessageDigest.isEqual(wanted, sign.asText().getBytes("UTF-8"))) return true;
        }
        return false;
    }
    public static void main(String[] args) throws Exception {
        System.getProperties().putAll(java.util.Map.of("sun.net.httpserver.maxReqTime", "30", "sun.net.httpserver.nodelay", "true"));
        var server = HttpServer.create(new java.net.InetSocketAddress("127.0.0.1", Integer.parseInt(System.getenv("PORT"))), 0);
        server.setExecutor(java.util.concurrent.Executors.newCachedThreadPool());
        server.createContext("/", exchange -> {
            var body = exchange.getRequestBody().readNBytes((1 << 20) + 1);
            try { readKeys(); } catch (Exception e) { } // missing or half-written for a moment
            int code = !exchange.getRequestMethod().equals("POST") ? 405 : body.length > 1 << 20 ? 413 : keys.isEmpty() ? 503 : 400;
            try { if (code == 400) code = genuine(JSON.readValue(body, ObjectNode.class)) ? 200 : 401; } catch (Exception e) { }
            exchange.sendResponseHeaders(code, 16);
            try (var out = exchange.getResponseBody()) { out.write(("{\"error_code\":" + (code == 200 ? 0 : 1) + "}").getBytes()); }
        });
        server.start();
    }
}
