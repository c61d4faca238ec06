-- insert
insert into engagement_demo values (1,'content-00000001','user-00007919','pause','2025-06-01 12:34:56.789012+02',1500,'ios','{"b": 1, "a": [1.50, null, "x"], "u": "\u00e9"}');

-- update (default replica identity)
update engagement_demo set duration_ms=1600, device=null where id=1;

-- update of the primary key
update engagement_demo set id=2 where id=1;

-- delete + tombstone (default replica identity)
delete from engagement_demo where id=2;

-- two changes in one transaction
insert into engagement_demo values (10,'content-00000001','user-00007919','pause','2025-06-01 12:34:56.789012+02',1500,'ios','{"b": 1, "a": [1.50, null, "x"], "u": "\u00e9"}');
insert into engagement_demo values (11,'content-00000001','user-00007919','pause','2025-06-01 12:34:56.789012+02',1500,'ios','{"b": 1, "a": [1.50, null, "x"], "u": "\u00e9"}');

-- truncate
truncate engagement_demo;

-- insert full
insert into full_demo values (1,'x',1);

-- update under REPLICA IDENTITY FULL
update full_demo set n=2 where id=1;

-- delete under REPLICA IDENTITY FULL
delete from full_demo where id=1;

-- no primary key: insert, update, delete
insert into nopk_demo values ('a',1);
update nopk_demo set n=2;
delete from nopk_demo;

-- TOAST insert
insert into toast_demo values (1,'s',repeat('x',9000));

-- TOAST update, big column unchanged
update toast_demo set small='s2' where id=1;

-- TOAST update under FULL, big column unchanged
insert into toast_full values (1,'s',repeat('x',9000));
update toast_full set small='s2' where id=1;

-- all types
insert into types_demo values (1,true,-2,9007199254740993,1.5,0.1,12345678.9012,3.14159265358979323846,42,'$12.34','ab','var','text é',
 '\xdeadbeef00','2025-06-01','12:34:56.789012','12:34:56.789','12:34:56.789012+02','2025-06-01 12:34:56.789012','2025-06-01 12:34:56','2025-06-01 12:34:56.789','2025-06-01 12:34:56.789012+02',
 '1 year 2 mons 3 days 04:05:06.789','a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11','{"b": 1,  "a":2.50}','{"b": 1,  "a":2.50}','happy','{1,null,3}','{a,"b c",null}','{1.10,22.22}','{2025-06-01 12:34:56.789012+02}',
 '192.168.1.5/24','10.0.0.0/8','08:00:2b:01:02:03',B'1',B'10100001',B'101','(1.5,2.5)','[1,5)','[2025-01-01 00:00+00,2025-01-02 00:00+00)','<a>1</a>',12345,'fat cat');

-- all types, all null
insert into types_demo(id, df) values (2, null);

-- types: extremes
insert into types_demo(id,n_free,d,r,dt,ts,tstz,iv,n,ti) values (3,'NaN','NaN','Infinity','infinity','infinity','-infinity','-1 mons +2 days -00:00:01',-0.0001,'24:00:00');

-- types: BC and far dates
insert into types_demo(id,dt,ts,tstz,n_free) values (4,'0044-03-15 BC','0044-03-15 00:00:00 BC','10000-01-01 00:00:00+00',123456789012345678901234567890.5);

-- schema change then insert
alter table full_demo add column z text default 'zz';
insert into full_demo values (5,'new',1);
