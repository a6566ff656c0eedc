


SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;


CREATE SCHEMA demo;



CREATE FUNCTION demo.cw_date(value text) RETURNS date
    LANGUAGE sql STABLE
    AS $_$ SELECT CASE WHEN value ~ '^(?!0000)[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$' THEN CASE WHEN right(value, 2)::int <= extract(day FROM make_date(left(value, 4)::int, substr(value, 6, 2)::int, 1) + interval '1 month - 1 day') THEN value::date END END $_$;



CREATE FUNCTION demo.cw_latitude(value text) RETURNS double precision
    LANGUAGE sql STABLE
    AS $_$ SELECT CASE WHEN value ~ '^-?([0-8]?[0-9]|90)[.][0-9]{1,30} -?([0-9]{1,2}|1[0-7][0-9]|180)[.][0-9]{1,30}( -?[0-9]{1,30}([.][0-9]{1,30})?){0,2}$' THEN split_part(value, ' ', 1)::float8 END $_$;



CREATE FUNCTION demo.cw_longitude(value text) RETURNS double precision
    LANGUAGE sql STABLE
    AS $_$ SELECT CASE WHEN value ~ '^-?([0-8]?[0-9]|90)[.][0-9]{1,30} -?([0-9]{1,2}|1[0-7][0-9]|180)[.][0-9]{1,30}( -?[0-9]{1,30}([.][0-9]{1,30})?){0,2}$' THEN split_part(value, ' ', 2)::float8 END $_$;



CREATE FUNCTION demo.cw_number(value text) RETURNS numeric
    LANGUAGE sql STABLE
    AS $_$ SELECT CASE WHEN value ~ '^-?(0|[1-9][0-9]{0,29})([.][0-9]{1,30})?$' THEN value::numeric END $_$;



CREATE FUNCTION demo.cw_time(value text) RETURNS timestamp with time zone
    LANGUAGE sql STABLE
    AS $_$ SELECT CASE WHEN value ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,9})?)?(Z|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?)?$' THEN CASE WHEN "demo".cw_date(left(value, 10)) IS NOT NULL THEN (value || CASE WHEN value ~ '[T ].*[Z+-]' THEN '' ELSE 'Z' END)::timestamptz END END $_$;


SET default_tablespace = '';

SET default_table_access_method = heap;


CREATE TABLE demo.case_patient (
    cw_domain text NOT NULL,
    cw_case_id text NOT NULL,
    cw_closed boolean,
    cw_date_closed timestamp with time zone,
    cw_date_modified timestamp with time zone,
    cw_server_date_modified timestamp with time zone,
    cw_user_id text,
    cw_parent_id text,
    cw_parent_type text,
    cw_indices jsonb,
    cw_version bigint,
    cw_deleted boolean,
    cw_doubtful boolean,
    cw_source text,
    cw_overflow jsonb,
    case_name text,
    case_type text,
    date_opened text,
    dob text,
    external_id text,
    gender text,
    owner_id text
);



CREATE VIEW demo.case_patient_typed AS
 SELECT case_patient.cw_domain,
    case_patient.cw_case_id,
    case_patient.cw_closed,
    case_patient.cw_date_closed,
    case_patient.cw_date_modified,
    case_patient.cw_server_date_modified,
    case_patient.cw_user_id,
    case_patient.cw_parent_id,
    case_patient.cw_parent_type,
    case_patient.cw_indices,
    case_patient.cw_version,
    case_patient.cw_deleted,
    case_patient.cw_doubtful,
    case_patient.cw_source,
    case_patient.cw_overflow,
    case_patient.case_name,
    case_patient.case_type,
    case_patient.date_opened,
    case_patient.dob,
    case_patient.external_id,
    case_patient.gender,
    case_patient.owner_id,
    demo.cw_date(case_patient.dob) AS dob__date,
    demo.cw_number(case_patient.external_id) AS external_id__number,
    demo.cw_time(case_patient.date_opened) AS date_opened__time
   FROM demo.case_patient;



CREATE TABLE demo.case_test_case_type (
    cw_domain text NOT NULL,
    cw_case_id text NOT NULL,
    cw_closed boolean,
    cw_date_closed timestamp with time zone,
    cw_date_modified timestamp with time zone,
    cw_server_date_modified timestamp with time zone,
    cw_user_id text,
    cw_parent_id text,
    cw_parent_type text,
    cw_indices jsonb,
    cw_version bigint,
    cw_deleted boolean,
    cw_doubtful boolean,
    cw_source text,
    cw_overflow jsonb,
    case_name text,
    case_type text,
    date_opened text,
    external_id text,
    owner_id text
);



CREATE VIEW demo.case_test_case_type_typed AS
 SELECT case_test_case_type.cw_domain,
    case_test_case_type.cw_case_id,
    case_test_case_type.cw_closed,
    case_test_case_type.cw_date_closed,
    case_test_case_type.cw_date_modified,
    case_test_case_type.cw_server_date_modified,
    case_test_case_type.cw_user_id,
    case_test_case_type.cw_parent_id,
    case_test_case_type.cw_parent_type,
    case_test_case_type.cw_indices,
    case_test_case_type.cw_version,
    case_test_case_type.cw_deleted,
    case_test_case_type.cw_doubtful,
    case_test_case_type.cw_source,
    case_test_case_type.cw_overflow,
    case_test_case_type.case_name,
    case_test_case_type.case_type,
    case_test_case_type.date_opened,
    case_test_case_type.external_id,
    case_test_case_type.owner_id,
    demo.cw_time(case_test_case_type.date_opened) AS date_opened__time
   FROM demo.case_test_case_type;



CREATE TABLE demo.case_without_type (
    cw_domain text NOT NULL,
    cw_case_id text NOT NULL,
    cw_closed boolean,
    cw_date_closed timestamp with time zone,
    cw_date_modified timestamp with time zone,
    cw_server_date_modified timestamp with time zone,
    cw_user_id text,
    cw_parent_id text,
    cw_parent_type text,
    cw_indices jsonb,
    cw_version bigint,
    cw_deleted boolean,
    cw_doubtful boolean,
    cw_source text,
    cw_overflow jsonb,
    data_node text,
    date_opened text,
    dateval text,
    geodata text,
    intval text,
    multiselect text,
    owner_id text,
    singleselect text,
    text text
);



CREATE VIEW demo.case_without_type_typed AS
 SELECT case_without_type.cw_domain,
    case_without_type.cw_case_id,
    case_without_type.cw_closed,
    case_without_type.cw_date_closed,
    case_without_type.cw_date_modified,
    case_without_type.cw_server_date_modified,
    case_without_type.cw_user_id,
    case_without_type.cw_parent_id,
    case_without_type.cw_parent_type,
    case_without_type.cw_indices,
    case_without_type.cw_version,
    case_without_type.cw_deleted,
    case_without_type.cw_doubtful,
    case_without_type.cw_source,
    case_without_type.cw_overflow,
    case_without_type.data_node,
    case_without_type.date_opened,
    case_without_type.dateval,
    case_without_type.geodata,
    case_without_type.intval,
    case_without_type.multiselect,
    case_without_type.owner_id,
    case_without_type.singleselect,
    case_without_type.text,
    demo.cw_date(case_without_type.dateval) AS dateval__date,
    demo.cw_latitude(case_without_type.geodata) AS geodata__latitude,
    demo.cw_longitude(case_without_type.geodata) AS geodata__longitude,
    demo.cw_number(case_without_type.data_node) AS data_node__number,
    demo.cw_number(case_without_type.intval) AS intval__number,
    demo.cw_time(case_without_type.date_opened) AS date_opened__time
   FROM demo.case_without_type;



CREATE TABLE demo.cases (
    domain text NOT NULL,
    case_id text NOT NULL,
    case_type text,
    version bigint,
    deleted boolean
);



CREATE TABLE demo.cw_names (
    number bigint NOT NULL,
    table_name text,
    kind text,
    source text,
    name text
);



COMMENT ON TABLE demo.cw_names IS 'Casewire, format 1';



CREATE TABLE demo.form_case_update_9d4014c3 (
    cw_domain text NOT NULL,
    cw_form_id text NOT NULL,
    cw_xmlns text,
    cw_name text,
    cw_app_id text,
    cw_app_version text,
    cw_build_id text,
    cw_received_on timestamp with time zone,
    cw_server_modified_on timestamp with time zone,
    cw_edited_on timestamp with time zone,
    cw_edited_by_user_id text,
    cw_time_start timestamp with time zone,
    cw_time_end timestamp with time zone,
    cw_user_id text,
    cw_username text,
    cw_device_id text,
    cw_location text,
    cw_metadata jsonb,
    cw_attachments jsonb,
    cw_version bigint,
    cw_deleted boolean,
    cw_overflow jsonb,
    case__case_id text
);



CREATE VIEW demo.form_case_update_9d4014c3_typed AS
 SELECT form_case_update_9d4014c3.cw_domain,
    form_case_update_9d4014c3.cw_form_id,
    form_case_update_9d4014c3.cw_xmlns,
    form_case_update_9d4014c3.cw_name,
    form_case_update_9d4014c3.cw_app_id,
    form_case_update_9d4014c3.cw_app_version,
    form_case_update_9d4014c3.cw_build_id,
    form_case_update_9d4014c3.cw_received_on,
    form_case_update_9d4014c3.cw_server_modified_on,
    form_case_update_9d4014c3.cw_edited_on,
    form_case_update_9d4014c3.cw_edited_by_user_id,
    form_case_update_9d4014c3.cw_time_start,
    form_case_update_9d4014c3.cw_time_end,
    form_case_update_9d4014c3.cw_user_id,
    form_case_update_9d4014c3.cw_username,
    form_case_update_9d4014c3.cw_device_id,
    form_case_update_9d4014c3.cw_location,
    form_case_update_9d4014c3.cw_metadata,
    form_case_update_9d4014c3.cw_attachments,
    form_case_update_9d4014c3.cw_version,
    form_case_update_9d4014c3.cw_deleted,
    form_case_update_9d4014c3.cw_overflow,
    form_case_update_9d4014c3.case__case_id
   FROM demo.form_case_update_9d4014c3;



CREATE TABLE demo.form_v2_create_94f79cd5 (
    cw_domain text NOT NULL,
    cw_form_id text NOT NULL,
    cw_xmlns text,
    cw_name text,
    cw_app_id text,
    cw_app_version text,
    cw_build_id text,
    cw_received_on timestamp with time zone,
    cw_server_modified_on timestamp with time zone,
    cw_edited_on timestamp with time zone,
    cw_edited_by_user_id text,
    cw_time_start timestamp with time zone,
    cw_time_end timestamp with time zone,
    cw_user_id text,
    cw_username text,
    cw_device_id text,
    cw_location text,
    cw_metadata jsonb,
    cw_attachments jsonb,
    cw_version bigint,
    cw_deleted boolean,
    cw_overflow jsonb,
    case__case_id text
);



CREATE VIEW demo.form_v2_create_94f79cd5_typed AS
 SELECT form_v2_create_94f79cd5.cw_domain,
    form_v2_create_94f79cd5.cw_form_id,
    form_v2_create_94f79cd5.cw_xmlns,
    form_v2_create_94f79cd5.cw_name,
    form_v2_create_94f79cd5.cw_app_id,
    form_v2_create_94f79cd5.cw_app_version,
    form_v2_create_94f79cd5.cw_build_id,
    form_v2_create_94f79cd5.cw_received_on,
    form_v2_create_94f79cd5.cw_server_modified_on,
    form_v2_create_94f79cd5.cw_edited_on,
    form_v2_create_94f79cd5.cw_edited_by_user_id,
    form_v2_create_94f79cd5.cw_time_start,
    form_v2_create_94f79cd5.cw_time_end,
    form_v2_create_94f79cd5.cw_user_id,
    form_v2_create_94f79cd5.cw_username,
    form_v2_create_94f79cd5.cw_device_id,
    form_v2_create_94f79cd5.cw_location,
    form_v2_create_94f79cd5.cw_metadata,
    form_v2_create_94f79cd5.cw_attachments,
    form_v2_create_94f79cd5.cw_version,
    form_v2_create_94f79cd5.cw_deleted,
    form_v2_create_94f79cd5.cw_overflow,
    form_v2_create_94f79cd5.case__case_id
   FROM demo.form_v2_create_94f79cd5;



CREATE TABLE demo.forms (
    domain text NOT NULL,
    form_id text NOT NULL,
    xmlns text,
    version bigint,
    deleted boolean
);



CREATE VIEW demo.patient_of_household AS
 SELECT child.cw_domain,
    child.cw_case_id AS cw_child_id,
    (held.value ->> 'case_id'::text) AS cw_parent_id,
    held.key AS cw_index,
    (held.value ->> 'relationship'::text) AS cw_relationship
   FROM (demo.case_patient child
     CROSS JOIN LATERAL jsonb_each(child.cw_indices) held(key, value))
  WHERE ((held.key = 'parent'::text) AND ((held.value ->> 'case_type'::text) = 'household'::text) AND (NOT child.cw_deleted));



INSERT INTO demo.case_patient VALUES ('demo', '79e25a30-8db5-4a5a-827b-0297b254e87f', false, NULL, '2020-03-19 14:31:34.133+00', '2020-03-19 14:31:35.139959+00', '06414101dc45bcfdc963b8cb1a1ebdfd', 'eb1a8c23-6d6d-4b61-894c-ae1c437d8dac', 'household', '{"parent": {"case_id": "eb1a8c23-6d6d-4b61-894c-ae1c437d8dac", "case_type": "household", "relationship": "child"}}', 1795000000000000, false, false, 'snapshot', NULL, 'Elizabeth Harmon', 'patient', '2020-03-19T14:31:34.133', '1948-11-02', '1', 'f', '20cc9dda-b90a-4af3-aa3d-fc67184e73ef');



INSERT INTO demo.case_test_case_type VALUES ('demo', 'ad38211be256653bceac8e2156475667', false, NULL, '2010-06-29 13:42:50+00', '2015-04-17 20:14:34.046462+00', 'ad38211be256653bceac8e2156475665', NULL, NULL, '{}', 1795000000000000, false, false, 'forms', NULL, 'test case name', 'test_case_type', '2010-06-29T13:42:50.000000Z', 'someexternal', 'ad38211be256653bceac8e2156475665');



INSERT INTO demo.case_without_type VALUES ('demo', 'b6996b7b-6b3f-476a-9006', false, NULL, '2016-11-29 14:50:41.156+00', '2016-11-29 14:50:42.530616+00', 'e7ad965c', NULL, NULL, '{}', 1795000000000000, false, false, 'forms', NULL, '55', '2016-11-29T14:50:41.156000Z', '2012-09-26', '5.0 5.0 5.0 5.0', '5', 'b', 'e7ad965c', 'b', 'TEST');



INSERT INTO demo.cases VALUES ('demo', '79e25a30-8db5-4a5a-827b-0297b254e87f', 'patient', 1795000000000000, false);
INSERT INTO demo.cases VALUES ('demo', 'ad38211be256653bceac8e2156475667', 'test_case_type', 1795000000000000, false);
INSERT INTO demo.cases VALUES ('demo', 'b6996b7b-6b3f-476a-9006', '', 1795000000000000, false);



INSERT INTO demo.cw_names VALUES (1, '', 'case', '', 'case_without_type');
INSERT INTO demo.cw_names VALUES (2, '', 'case', 'patient', 'case_patient');
INSERT INTO demo.cw_names VALUES (3, '', 'case', 'test_case_type', 'case_test_case_type');
INSERT INTO demo.cw_names VALUES (4, 'case_without_type', 'column', 'data_node', 'data_node');
INSERT INTO demo.cw_names VALUES (5, 'case_without_type', 'column', 'date_opened', 'date_opened');
INSERT INTO demo.cw_names VALUES (6, 'case_without_type', 'column', 'dateval', 'dateval');
INSERT INTO demo.cw_names VALUES (7, 'case_without_type', 'column', 'geodata', 'geodata');
INSERT INTO demo.cw_names VALUES (8, 'case_without_type', 'column', 'intval', 'intval');
INSERT INTO demo.cw_names VALUES (9, 'case_without_type', 'column', 'multiselect', 'multiselect');
INSERT INTO demo.cw_names VALUES (10, 'case_without_type', 'column', 'owner_id', 'owner_id');
INSERT INTO demo.cw_names VALUES (11, 'case_without_type', 'column', 'singleselect', 'singleselect');
INSERT INTO demo.cw_names VALUES (12, 'case_without_type', 'column', 'text', 'text');
INSERT INTO demo.cw_names VALUES (13, 'case_patient', 'column', 'case_name', 'case_name');
INSERT INTO demo.cw_names VALUES (14, 'case_patient', 'column', 'case_type', 'case_type');
INSERT INTO demo.cw_names VALUES (15, 'case_patient', 'column', 'date_opened', 'date_opened');
INSERT INTO demo.cw_names VALUES (16, 'case_patient', 'column', 'dob', 'dob');
INSERT INTO demo.cw_names VALUES (17, 'case_patient', 'column', 'external_id', 'external_id');
INSERT INTO demo.cw_names VALUES (18, 'case_patient', 'column', 'gender', 'gender');
INSERT INTO demo.cw_names VALUES (19, 'case_patient', 'column', 'owner_id', 'owner_id');
INSERT INTO demo.cw_names VALUES (20, 'case_test_case_type', 'column', 'case_name', 'case_name');
INSERT INTO demo.cw_names VALUES (21, 'case_test_case_type', 'column', 'case_type', 'case_type');
INSERT INTO demo.cw_names VALUES (22, 'case_test_case_type', 'column', 'date_opened', 'date_opened');
INSERT INTO demo.cw_names VALUES (23, 'case_test_case_type', 'column', 'external_id', 'external_id');
INSERT INTO demo.cw_names VALUES (24, 'case_test_case_type', 'column', 'owner_id', 'owner_id');
INSERT INTO demo.cw_names VALUES (25, 'case_patient', 'index', 'parent/household', 'patient_of_household');
INSERT INTO demo.cw_names VALUES (26, 'case_patient', 'view', '', 'case_patient_typed');
INSERT INTO demo.cw_names VALUES (27, 'case_test_case_type', 'view', '', 'case_test_case_type_typed');
INSERT INTO demo.cw_names VALUES (28, 'case_without_type', 'view', '', 'case_without_type_typed');
INSERT INTO demo.cw_names VALUES (29, 'case_patient', 'date', 'dob', 'dob__date');
INSERT INTO demo.cw_names VALUES (30, 'case_patient', 'number', 'external_id', 'external_id__number');
INSERT INTO demo.cw_names VALUES (31, 'case_patient', 'time', 'date_opened', 'date_opened__time');
INSERT INTO demo.cw_names VALUES (32, 'case_test_case_type', 'time', 'date_opened', 'date_opened__time');
INSERT INTO demo.cw_names VALUES (33, 'case_without_type', 'date', 'dateval', 'dateval__date');
INSERT INTO demo.cw_names VALUES (34, 'case_without_type', 'latitude', 'geodata', 'geodata__latitude');
INSERT INTO demo.cw_names VALUES (35, 'case_without_type', 'longitude', 'geodata', 'geodata__longitude');
INSERT INTO demo.cw_names VALUES (36, 'case_without_type', 'number', 'data_node', 'data_node__number');
INSERT INTO demo.cw_names VALUES (37, 'case_without_type', 'number', 'intval', 'intval__number');
INSERT INTO demo.cw_names VALUES (38, 'case_without_type', 'time', 'date_opened', 'date_opened__time');
INSERT INTO demo.cw_names VALUES (39, '', 'form', 'http://commcarehq.org/test/submit', 'form_v2_create_94f79cd5');
INSERT INTO demo.cw_names VALUES (40, '', 'form', 'http://openrosa.org/formdesigner/4281EB62-46E6-49AD-A08C', 'form_case_update_9d4014c3');
INSERT INTO demo.cw_names VALUES (41, 'form_v2_create_94f79cd5', 'column', 'case/@case_id', 'case__case_id');
INSERT INTO demo.cw_names VALUES (42, 'form_case_update_9d4014c3', 'column', 'case/@case_id', 'case__case_id');
INSERT INTO demo.cw_names VALUES (43, 'form_case_update_9d4014c3', 'view', '', 'form_case_update_9d4014c3_typed');
INSERT INTO demo.cw_names VALUES (44, 'form_v2_create_94f79cd5', 'view', '', 'form_v2_create_94f79cd5_typed');



INSERT INTO demo.form_case_update_9d4014c3 VALUES ('demo', 'f959449c-8776-42ac-b776-3f564fafc331', 'http://openrosa.org/formdesigner/4281EB62-46E6-49AD-A08C', 'Case Update', 'effb341b', '18', 'e0a6125', '2016-11-29 14:50:42.530616+00', '2016-11-29 14:50:42.530616+00', NULL, NULL, '2016-11-29 14:50:36.155+00', '2016-11-29 14:50:41.156+00', 'e7ad965c70802884a7a67add763939e8', 'testuser', '358001070684648', NULL, '{"userID": "e7ad965c70802884a7a67add763939e8", "timeEnd": "2016-11-29T14:50:41.156000Z", "deviceID": "358001070684648", "doc_type": "Metadata", "location": null, "username": "testuser", "geo_point": null, "timeStart": "2016-11-29T14:50:36.155000Z", "appVersion": "CommCare Android, version \"2.31.0\"(423345). App v18. CommCare Version 2.31. Build 423345, built on: 2016-11-02", "instanceID": "f959449c-8776-42ac-b776-3f564fafc331", "deprecatedID": null, "timeEnd_sent": "2016-11-29T14:50:41.156000", "timeStart_sent": "2016-11-29T14:50:36.155000", "commcare_version": "2.31.0", "app_build_version": 18}', '{"form.xml": {"url": "https://www.commcarehq.org/a/my-project/api/form_attachment/v1/f959449c-8776-42ac-b776-3f564fafc331/form.xml", "length": 1103, "content_type": "text/xml"}}', 1795000000000000, false, NULL, 'b6996b7b-6b3f-476a-9006');



INSERT INTO demo.form_v2_create_94f79cd5 VALUES ('demo', 'ad38211be256653bceac8e2156475666', 'http://commcarehq.org/test/submit', 'v2 create', NULL, '1', NULL, '2015-04-17 20:14:34.046462+00', NULL, NULL, NULL, '2010-06-29 13:42:50.137+00', '2010-06-29 13:55:50.137+00', 'ad38211be256653bceac8e2156475665', 'someuser', 'Chalimbana', NULL, '{"userID": "ad38211be256653bceac8e2156475665", "timeEnd": "2010-06-29T13:55:50.137000Z", "deviceID": "Chalimbana", "location": null, "username": "someuser", "timeStart": "2010-06-29T13:42:50.137000Z", "appVersion": null, "instanceID": "ad38211be256653bceac8e2156475666", "timeEnd_sent": "2010-06-29T13:55:50.137", "timeStart_sent": "2010-06-29T13:42:50.137"}', NULL, 1795000000000000, false, NULL, 'ad38211be256653bceac8e2156475667');



INSERT INTO demo.forms VALUES ('demo', 'ad38211be256653bceac8e2156475666', 'http://commcarehq.org/test/submit', 1795000000000000, false);
INSERT INTO demo.forms VALUES ('demo', 'f959449c-8776-42ac-b776-3f564fafc331', 'http://openrosa.org/formdesigner/4281EB62-46E6-49AD-A08C', 1795000000000000, false);



ALTER TABLE ONLY demo.case_patient
    ADD CONSTRAINT key_case_patient PRIMARY KEY (cw_domain, cw_case_id);



ALTER TABLE ONLY demo.case_test_case_type
    ADD CONSTRAINT key_case_test_case_type PRIMARY KEY (cw_domain, cw_case_id);



ALTER TABLE ONLY demo.case_without_type
    ADD CONSTRAINT key_case_without_type PRIMARY KEY (cw_domain, cw_case_id);



ALTER TABLE ONLY demo.cases
    ADD CONSTRAINT key_cases PRIMARY KEY (domain, case_id);



ALTER TABLE ONLY demo.cw_names
    ADD CONSTRAINT key_cw_names PRIMARY KEY (number);



ALTER TABLE ONLY demo.form_case_update_9d4014c3
    ADD CONSTRAINT key_form_case_update_9d4014c3 PRIMARY KEY (cw_domain, cw_form_id);



ALTER TABLE ONLY demo.form_v2_create_94f79cd5
    ADD CONSTRAINT key_form_v2_create_94f79cd5 PRIMARY KEY (cw_domain, cw_form_id);



ALTER TABLE ONLY demo.forms
    ADD CONSTRAINT key_forms PRIMARY KEY (domain, form_id);




