-- Every user counts towards the plan's limit on users.
SELECT tenantry.meter('users', 'public.users');
