import django

django.setup()

from django.db import connection

with connection.cursor() as cursor:
    cursor.execute("SELECT email FROM users")
    for (email,) in cursor:
        print(email)
