-- A name for the data in this database: `candidate`, or what an earlier caller set. A wiped
-- database has none, so its next caller gives it a new one.
redis.call('SET', PREFIX .. 'generation', ARGV[1], 'NX')
return redis.call('GET', PREFIX .. 'generation')
