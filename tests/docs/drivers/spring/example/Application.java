package example;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.jdbc.core.JdbcTemplate;

@SpringBootApplication
public class Application {
    public static void main(String[] arguments) {
        try (var context = SpringApplication.run(Application.class, arguments)) {
            var jdbc = context.getBean(JdbcTemplate.class);
            jdbc.queryForList("SELECT email FROM users", String.class).forEach(System.out::println);
        }
    }
}
