import gzip
import os
from pathlib import Path

import pytest

from deploy.workload.read import read_workload
from deploy.workload.request import WorkloadError

pytestmark = pytest.mark.unit


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str) -> Path:
        file = tmp_path / name
        file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return file

    return write


def shapes(requests):
    return [(request.arrival_s, request.num_prompt_tokens, request.num_output_tokens) for request in requests]


@pytest.mark.parametrize("name", ["azure.csv", "azure.csv.gz"])
def test_azure_times_count_from_the_first_request(write, name):
    header = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    rows = "2023-11-16 18:15:46.6800000,374,44\n2023-11-16 18:15:50.6800000,396,109\n"
    assert shapes(read_workload(write(name, header + rows))) == [(0.0, 374, 44), (4.0, 396, 109)]


def test_failed_rows_of_burstgpt_are_left_out(write):
    header = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    rows = "5,ChatGPT,472,18,490,c\n6,GPT-4,0,0,0,c\n7,ChatGPT,30,0,30,c\n45,ChatGPT,1087,230,1317,c\n"
    assert shapes(read_workload(write("burst.csv", header + rows))) == [(0.0, 472, 18), (40.0, 1087, 230)]


def test_a_file_of_lengths_has_no_arrivals(write):
    assert shapes(read_workload(write("l.csv", "num_prefill_tokens,num_decode_tokens\n74,918\n"))) == [(None, 74, 918)]


def test_requests_in_one_tick_of_mooncake_are_spread_until_the_next(write):
    line = '{"timestamp": %d, "input_length": 600, "output_length": 5, "hash_ids": [0, 1]}\n'
    requests = read_workload(write("m.jsonl", "".join(line % time for time in (3000, 3000, 6000))))
    assert [request.arrival_s for request in requests] == [0.0, 1.5, 3.0]
    assert requests[0].hash_ids == (0, 1)


def test_the_limit_takes_the_earliest(write):
    rows = "prompt_len,output_len,start_time\n2,1,1.0\n1,1,2.0\n"
    assert shapes(read_workload(write("d.csv", rows), limit=1)) == [(0.0, 2, 1)]


def test_a_list_of_objects_is_read_as_well(write):
    entries = (
        '[{"start_time": 0.5, "prompt_len": 7, "output_len": 2}, {"start_time": 1, "prompt_len": 8, "output_len": 3}]'
    )
    assert shapes(read_workload(write("d.json", entries))) == [(0.0, 7, 2), (0.5, 8, 3)]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "a.csv",
            "a,b\n1,2\n",
            r"line 1: no column of prompt lengths among \['a', 'b'\]; expected one of contexttokens",
        ),
        ("a.csv", "prompt_len,output_len\n1,2\nx,2\n", r"line 3: prompt_len: 'x' is no whole number"),
        ("a.csv", "prompt_len,output_len\n0,2\n", r"line 2: prompt_len: a prompt of 0 tokens"),
        ("a.csv", "prompt_len,output_len\n5,-2\n", r"line 2: output_len: -2 is below 0"),
        ("a.csv", "prompt_len,output_len\n5\n", r"line 2: output_len is missing"),
        ("a.csv", "prompt_len,output_len\n5,0\n", r"line 2: output_len: an output of 0 tokens"),
        ("a.csv", "prompt_len,output_len\n5,10.5\n", r"line 2: output_len: '10.5' is no whole number"),
        ("a.csv", "prompt_len,output_len\n5,6\n5,6,7\n", r"line 3: 3 values, but 2 columns"),
        ("a.csv", "prompt_len,output_len\n", "holds no request"),
        ("a.jsonl", "", "holds no request"),
        ("a.json", "[]", "holds no request"),
        ("a.json", "[{}", r"line 1: Expecting"),
        ("a.json", "{}", r"line 1: should be a list"),
        ("a.json", '[{"prompt_len": 1, "output_len": 1}, 3]', r"entry 2: 3 is no object"),
        ("a.json", '[{"prompt_len": 1}]', r"entry 1: no column of output lengths among \['prompt_len'\]"),
        (
            "a.csv",
            "start_time,prompt_len,output_len\n0,1,1\n3,1,1\n2.5,1,1\n",
            r"line 4: arrives 0.5 s before the request above it; sort the file by time",
        ),
        ("a.csv", "start_time,prompt_len,output_len\n-1,1,1\n0,1,1\n", r"line 2: arrives at -1 s; times count from 0"),
        ("a.csv", "start_time,prompt_len,output_len\nnan,1,1\n", r"line 2: start_time: 'nan' is no time"),
        (
            "a.jsonl",
            '{"timestamp": 1, "input_length": 5, "output_length": 0}\n',
            r"line 1: output_length: an output of 0 tokens",
        ),
        (
            "a.jsonl",
            '{"timestamp": 6000, "input_length": 5, "output_length": 1}\n'
            '{"timestamp": 3000, "input_length": 5, "output_length": 1}\n',
            r"line 2: arrives 3 s before the request above it",
        ),
        ("a.csv", "", r"a.csv holds no request"),
        ("a.json", "", r"a.json holds no request"),
        ("a.jsonl", '{"timestamp": 1}\n', r"line 1: input_length is missing"),
        (
            "a.jsonl",
            '{"timestamp": 1, "input_length": 5, "output_length": 5, "hash_ids": 5}\n',
            r"line 1: hash_ids: 5 is no list",
        ),
        ("a.jsonl", "{\n", r"line 1: Expecting property name"),
        ("a.jsonl", "3\n", r"line 1: 3 is no object"),
        ("a.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\nnoon,1,1\n", r"line 2: TIMESTAMP: 'noon' is no time"),
    ],
)
def test_a_wrong_line_is_named(write, name, text, expected):
    with pytest.raises(WorkloadError, match=expected):
        read_workload(write(name, text))


def test_a_missing_or_broken_file_is_named(write, tmp_path):
    with pytest.raises(WorkloadError, match=r"none\.csv cannot be read: No such file"):
        read_workload(tmp_path / "none.csv")
    (tmp_path / "a.csv.gz").write_bytes(b"not gzip")
    with pytest.raises(WorkloadError, match=r"a\.csv\.gz cannot be read: Not a gzipped file"):
        read_workload(tmp_path / "a.csv.gz")


@pytest.mark.parametrize(
    ("name", "num_requests", "mean_prompt"),
    [
        ("azure2023_conv.csv.gz", 19_366, 1155),
        ("mooncake_conversation.jsonl.gz", 12_031, 12_035),
        ("burstgpt1_head400.csv.gz", 383, 544),
    ],
)
def test_public_traces_are_read_whole(name, num_requests, mean_prompt):
    folder = Path(os.environ.get("BATON_TRACES", Path(__file__).parents[4] / "shared/traces"))
    if not folder.is_dir():
        pytest.skip("no traces: neither BATON_TRACES nor ../shared/traces")
    requests = read_workload(folder / name)
    assert len(requests) == num_requests
    assert round(sum(request.num_prompt_tokens for request in requests) / num_requests) == mean_prompt
